"""The receipt as the script writes it, also with what a killed run added."""

import sys
from pathlib import Path

import pytest

from membridge.errors import UnsupportedFormatError
from membridge.system import receipt


def test_the_newest_facts_and_all_checksums_are_read(tmp_path: Path) -> None:
    lines = [
        "membridge-receipt\t1\t-", "scope\tuser\t-", "folder\t-\t/a b", "file\t11\t/a b/unit", "link\t-\t/p/current",
        "enabled\tsystemd\tmembridge-node", "version\t1.0\t-",
        "enabled\tsystemd\tmembridge-node", "file\t22\t/a b/unit", "version\t2.0\t-", "later kind\t-\t-", "cut off",
    ]  # fmt: skip
    file = tmp_path / "receipt"
    file.write_text("\n".join(lines))

    read = receipt.read(file)

    assert read is not None
    assert read.facts == {"scope": "user", "version": "2.0"}
    assert read.files == {Path("/a b/unit"): ("11", "22")}
    assert (read.links, read.services) == ((Path("/p/current"),), (("systemd", "membridge-node"),))
    assert (read.prefix, read.current, read.script) == (tmp_path, tmp_path / "current", tmp_path / "install.sh")


def test_no_receipt_is_none(tmp_path: Path) -> None:
    assert receipt.read(tmp_path / "receipt") is None


@pytest.mark.parametrize("text", ["", "membridge-receipt\t2\t-\n", "something else\n"])
def test_a_receipt_of_another_format_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "receipt"
    file.write_text(text)

    with pytest.raises(UnsupportedFormatError, match="not a receipt of this version's installer"):
        receipt.read(file)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The receipt of the installation that this interpreter belongs to."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "versions" / "1.0"))
    file = tmp_path / "receipt"
    file.write_text("membridge-receipt\t1\t-\nscope\tuser\t-\n")
    return file


def test_hooks_are_noted_once_and_all_else_stays(installed: Path) -> None:
    before = installed.read_text()
    for _ in range(2):
        receipt.note_hooks(Path("/folder b/.claude/skills/membridge"), Path("/state"))

    assert installed.read_text() == f"{before}hooks\t/state\t/folder b/.claude/skills/membridge\n"
    found = receipt.find()
    assert found is not None
    assert found.scope == "user"


def test_hooks_of_a_folder_that_a_line_cannot_name_are_not_noted(installed: Path) -> None:
    before = installed.read_text()
    receipt.note_hooks(Path("/a\tb"), Path("/state"))
    receipt.note_hooks(Path("/a"), Path("/state\nfile\t-\t/etc"))
    assert installed.read_text() == before


def test_without_a_receipt_nothing_is_noted(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed.unlink()
    receipt.note_hooks(Path("/a"), Path("/state"))
    monkeypatch.setattr(sys, "prefix", "/usr")
    receipt.note_hooks(Path("/a"), Path("/state"))
    assert not installed.exists()


def test_a_receipt_that_only_root_may_change_is_left(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, opened = installed.read_text(), Path.open

    def refused(path: Path, mode: str = "r", *more: object, **named: object) -> object:
        if path == installed and "+" in mode:
            raise PermissionError(13, "Permission denied")
        return opened(path, mode, *more, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refused)
    receipt.note_hooks(Path("/a"), Path("/state"))
    assert installed.read_text() == before
