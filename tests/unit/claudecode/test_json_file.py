"""A JSON file that others rewrite too: read strictly, written as it was, replaced only while it is what was read."""

import errno
import json
import stat
from pathlib import Path

import pytest

from membridge.claudecode import json_file
from membridge.claudecode.json_file import ATTEMPTS, Document
from membridge.errors import ConflictError, DiskFullError, InvalidRequestError
from membridge.system import files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.json"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def with_key(before: bytes | None) -> bytes:
    """Add a key of ours."""
    return json_file.written({**json_file.parse(before, "settings.json"), "ours": 1}, before)


@pytest.mark.parametrize(
    "before",
    [
        '{\n\t"ours": 0\n}\n', '{\n    "ours": 0\n}', '{"ours": 0}', '{"ours": 0}\n', '{\n"ours": 0\n}\n',
        '{\r\n  "ours": 0\r\n}\r\n', '{\n\n  "ours": 0\n}\n',
    ],
)  # fmt: skip
def test_a_file_keeps_its_indentation_and_its_line_ends(before: str) -> None:
    written = with_key(before.encode()).decode()
    assert written == before.replace("\n\n", "\n").replace("0", "1")


@pytest.mark.parametrize("before", [None, b"", b" \n"])
def test_a_new_file_is_indented(before: bytes | None) -> None:
    assert json_file.written({"a": "ü"}, before) == '{\n  "a": "ü"\n}\n'.encode()


def test_half_a_character_survives() -> None:
    before = b'{"name": "\\ud83d", "\xc3\xbc": 1}'
    assert json.loads(json_file.written(json_file.parse(before, "x"), before)) == {"name": "\ud83d", "ü": 1}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "line 1: Expecting"), (b'{\n  "a": 1, // mine\n}', "line 2: "), (b'{"a": 1, "a": 2}', "twice"),
        (b'{"b": [{"a": 1, "a": 2}]}', "twice"), (b'{"a": NaN}', "NaN is not JSON"), (b"\xff{}", "utf-8"),
        (b"[" * 100_000, "recursion"), ("\ufeff{}".encode(), "BOM"), ("{}".encode("utf-16"), "utf-8"),
    ],
)  # fmt: skip
def test_what_could_not_be_written_back_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^x/settings\.json is not valid JSON: ") as refused:
        json_file.parsed(content, "x/settings.json")
    assert reason in refused.value.message
    assert "correct x/settings.json" in refused.value.remedy


@pytest.mark.parametrize("content", [b"[]", b"null", b'"x"', b"1"])
def test_another_value_is_not_an_object(content: bytes) -> None:
    json_file.parsed(content, "x")
    with pytest.raises(InvalidRequestError, match="x is not a JSON object"):
        json_file.parse(content, "x")


def test_no_file_and_an_empty_one_are_an_empty_object() -> None:
    assert json_file.parse(None, "x") == json_file.parse(b" \n", "x") == {}


def test_a_file_is_made_replaced_and_removed(file: Path) -> None:
    assert json_file.replace(file, with_key)
    assert json.loads(file.read_bytes()) == {"ours": 1}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not json_file.replace(file, with_key)

    file.write_text('{"theirs": 1}')
    file.chmod(0o640)
    assert json_file.replace(file, with_key)
    assert list(json.loads(file.read_bytes())) == ["theirs", "ours"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o640

    assert json_file.replace(file, lambda _before: None)
    assert not json_file.replace(file, lambda _before: None)
    assert names(file.parent) == set()


def test_what_claude_code_writes_meanwhile_is_not_lost(file: Path) -> None:
    file.write_text("{}")
    written = iter(['{"by": "claude"}', None, '{"by": "claude", "again": 1}'])

    def slow(before: bytes | None) -> bytes:
        after = with_key(before)
        if (newer := next(written, None)) is not None:
            file.write_text(newer)
        return after

    assert json_file.replace(file, slow)
    assert json.loads(file.read_bytes()) == {"by": "claude", "ours": 1}


def test_what_claude_code_writes_until_the_rename_is_not_lost(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file is on the disk before the comparison: that can take seconds."""
    file.write_text("{}")
    sync, waited = files.sync_path, iter([True])

    def slow(path: Path) -> None:
        sync(path)
        if next(waited, False):
            file.write_text('{"by": "claude"}')

    monkeypatch.setattr(files, "sync_path", slow)

    assert json_file.replace(file, with_key)
    assert json.loads(file.read_bytes()) == {"by": "claude", "ours": 1}


@pytest.mark.parametrize("gone", [False, True], ids=["changed", "to be removed"])
def test_a_file_that_changes_all_the_time_is_left_alone(file: Path, gone: bool) -> None:
    file.write_text("{}")
    times = 0

    def slow(before: bytes | None) -> bytes | None:
        nonlocal times
        times += 1
        after = None if gone else with_key(before)
        file.write_text(json.dumps({"time": times}))
        return after

    with pytest.raises(ConflictError, match=r"settings\.json was left alone"):
        json_file.replace(file, slow)

    assert json.loads(file.read_bytes()) == {"time": ATTEMPTS}
    assert names(file.parent) == {"settings.json"}


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles" / "claude.json"
    target.parent.mkdir()
    target.write_text("{}")
    file.symlink_to(target)

    assert json_file.replace(file, with_key)

    assert file.is_symlink()
    assert json.loads(target.read_bytes()) == {"ours": 1}
    assert names(target.parent) == {"claude.json"}


@pytest.mark.parametrize("call", ["sync_path", "put_in_place"])
def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(
    file: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    file.write_text("{}")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, call, full)
        with pytest.raises(DiskFullError):
            json_file.replace(file, with_key)

    assert file.read_text() == "{}"
    assert names(file.parent) == {"settings.json"}


def test_what_a_killed_run_left_is_removed(file: Path) -> None:
    file.write_text('{"ours": 1}')
    (file.parent / ".settings.json.membridge.part").write_text("half")

    def unchanged(before: bytes | None) -> bytes | None:
        return before

    assert not json_file.replace(file, unchanged)
    assert names(file.parent) == {"settings.json"}


def test_a_content_that_cannot_be_made_changes_nothing(file: Path) -> None:
    file.write_text("{")

    def edited(before: bytes | None) -> bytes:
        document: Document = json_file.parse(before, file)
        return json_file.written(document, before)

    with pytest.raises(InvalidRequestError):
        json_file.replace(file, edited)
    assert file.read_text() == "{"
    assert names(file.parent) == {"settings.json"}
