"""The user's settings.json: what Membridge does not know stays, and a file that is not safe to change is left alone."""

import json
import stat
from pathlib import Path

import pytest

from membridge.claudecode import user_settings
from membridge.claudecode.json_file import Document
from membridge.errors import InvalidRequestError

HOOK: Document = {"type": "command", "command": "ours", "timeout": 10}
THEIRS = {
    "zeta": 1,
    "unknown": {"b": [1.5, None, "ü", "\U0001f600"], "a": True},
    "hooks": {
        "Stop": [{"matcher": "x", "hooks": [{"type": "command", "command": "theirs", "new_key": 1}]}],
        "Later": [{"hooks": [{"type": "prompt", "prompt": "p"}]}],
    },
    "alpha": {},
}


def add(document: Document) -> None:
    user_settings.add(document, "Stop", HOOK)
    user_settings.add(document, "SessionEnd", HOOK)


def remove(document: Document) -> None:
    user_settings.remove(document, lambda command: command == "ours")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.json"


@pytest.mark.parametrize("indent", [None, 2, 4, "\t"])
def test_hooks_come_and_go_and_all_else_stays(file: Path, tmp_path: Path, indent: int | str | None) -> None:
    before = json.dumps(THEIRS, indent=indent, ensure_ascii=False) + "\n"
    file.write_text(before, encoding="utf-8")
    file.chmod(0o640)

    assert user_settings.change(file, add, backup=tmp_path / "backup")

    changed = json.loads(file.read_text(encoding="utf-8"))
    assert list(changed) == list(THEIRS)
    assert changed["hooks"]["Stop"] == [*THEIRS["hooks"]["Stop"], {"hooks": [HOOK]}]  # type: ignore[index]
    assert list(changed["hooks"]) == ["Stop", "Later", "SessionEnd"]
    assert (tmp_path / "backup").read_text(encoding="utf-8") == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert not user_settings.change(file, add)

    assert user_settings.change(file, remove)

    assert file.read_text(encoding="utf-8") == before
    assert not user_settings.change(file, remove)
    assert {path.name for path in tmp_path.iterdir()} == {"settings.json", "backup"}


def test_a_missing_file_is_made_and_goes_again(file: Path, tmp_path: Path) -> None:
    assert user_settings.change(file, add, backup=tmp_path / "backup")
    assert set(json.loads(file.read_text())) == {"hooks"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    assert user_settings.take_back(file, remove, lambda _document: None, created=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        b"{", b"[]", b"null", b'{"a": 1, "a": 2}', b'{"a": NaN}', b"\xff{}", b'{"hooks": []}',
        b'{"hooks": {"Stop": {}}}', b'{"hooks": {"Stop": [1]}}', b'{"hooks": {"Stop": [{"hooks": 1}]}}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_file_that_is_not_as_expected_is_left_alone(file: Path, tmp_path: Path, content: bytes) -> None:
    file.write_bytes(content)

    with pytest.raises(InvalidRequestError, match=r"settings\.json") as failure:
        user_settings.change(file, add, backup=tmp_path / "backup")

    assert failure.value.remedy
    assert file.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


def test_commands_are_listed() -> None:
    assert user_settings.commands(json.loads(json.dumps(THEIRS))) == ["theirs"]
    assert user_settings.commands({"hooks": None}) == []
