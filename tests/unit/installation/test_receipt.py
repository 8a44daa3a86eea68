"""The receipt as the script writes it, also with what a killed run added."""

from pathlib import Path

import pytest

from membridge.errors import UnsupportedFormatError
from membridge.installation import receipt


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
