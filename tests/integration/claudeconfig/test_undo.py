"""`pull --undo`, a full disk, and files that change while a pull writes."""

import errno
import json
from pathlib import Path

import pytest

from membridge.claudeconfig import settle
from membridge.claudeconfig.pull import undo_newest
from membridge.errors import CorruptObjectError, DiskFullError, NotFoundError
from membridge.system import files
from tests.integration.claudeconfig.conftest import Machine, Machines


async def both(machines: Machines) -> tuple[Machine, Machine]:
    """A pushed something that b has in part."""
    a, b = await machines.make("a"), await machines.make("b")
    a.write("CLAUDE.md", "of a\n")
    a.write("rules/a.md", "a\n")
    a.write("skills/s/run.sh", "#!/bin/sh\n", mode=0o755)
    a.settings({"model": "opus", "language": "en"})
    b.write("CLAUDE.md", "of b\n", mode=0o600)
    b.settings({"env": {"A": "1"}, "model": "haiku"})
    await a.push()
    return a, b


async def test_undo_puts_everything_back_also_permissions_and_folders(machines: Machines) -> None:
    _, b = await both(machines)
    before = b.tree()
    await b.pull()
    assert sorted(b.tree()) == [
        "CLAUDE.md", "CLAUDE.md.theirs-a-1", "rules/a.md", "settings.json", "settings.json.theirs-a-1",
        "skills/s/run.sh",
    ]  # fmt: skip
    done = undo_newest(b.place)
    assert (b.tree(), done.left) == (before, [])
    assert sorted(path.name for path in b.place.config.iterdir()) == ["CLAUDE.md", "settings.json"]
    with pytest.raises(NotFoundError):
        undo_newest(b.place)
    # The same comes again.
    await b.pull()
    assert "rules/a.md" in b.tree()


async def test_undo_leaves_what_was_changed_since_and_takes_settings_back_by_key(machines: Machines) -> None:
    a, b = await both(machines)
    await b.pull()
    b.write("rules/a.md", "changed since\n")
    now = {**b.read_settings(), "model": "sonnet", "mine": True}
    b.settings(now)
    done = undo_newest(b.place)
    assert [(one.path, one.reason) for one in done.left] == [("rules/a.md", "it was changed after the pull")]
    assert b.text("rules/a.md") == "changed since\n"
    assert b.read_settings() == {"env": {"A": "1"}, "model": "sonnet", "mine": True}
    assert a.read_settings() == {"model": "opus", "language": "en"}


async def test_undo_leaves_settings_that_cannot_be_read_and_puts_the_rest_back(machines: Machines) -> None:
    _, b = await both(machines)
    await b.pull()
    b.write("settings.json", "{ broken")
    done = undo_newest(b.place)
    [left] = done.left
    assert left.path == "settings.json"
    assert "is not valid JSON: line 1" in left.reason
    assert b.text("settings.json") == "{ broken"
    assert b.text("CLAUDE.md") == "of b\n"
    assert not (b.place.config / "rules").exists()


@pytest.mark.parametrize("act", ["pull", "undo"])
async def test_what_claude_code_writes_into_settings_until_the_rename_stays(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    _, b = await both(machines)
    if act == "undo":
        await b.pull()
    sync, parts = files.sync_path, iter([True])

    def slow(path: Path) -> None:
        sync(path)
        if path.name == ".settings.json.membridge.part" and next(parts, False):
            b.settings({**b.read_settings(), "theme": "dark"})

    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_path", slow)
        if act == "undo":
            assert undo_newest(b.place).left == []
        else:
            assert (await b.pull()).settled.unwritten == {}
    gained = {} if act == "undo" else {"language": "en"}
    assert b.read_settings() == {"env": {"A": "1"}, "model": "haiku", "theme": "dark", **gained}
    assert next(parts, None) is None


async def test_pulls_are_undone_one_after_the_other(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    for number in range(3):
        a.write("CLAUDE.md", f"{number}\n")
        await a.push()
        await b.pull()
    for number in (1, 0):
        undo_newest(b.place)
        assert b.text("CLAUDE.md") == f"{number}\n"
    await b.pull()
    assert b.text("CLAUDE.md") == "2\n"


async def test_a_damaged_record_is_named_and_stops_nothing_else(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    for number in range(2):
        a.write("CLAUDE.md", f"{number}\n")
        await a.push()
        await b.pull()
    record = max((b.place.state / "undo").iterdir())
    record.write_bytes(b"damaged")
    with pytest.raises(CorruptObjectError) as refused:
        undo_newest(b.place)
    assert refused.value.remedy == f"remove it to undo the pull before: rm {record}"
    record.unlink()
    undo_newest(b.place)
    assert "CLAUDE.md" in b.tree()


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4, 5])
async def test_a_full_disk_leaves_each_file_old_or_new_and_the_pull_is_repeated(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    _, b = await both(machines)
    before, count, put_in_place = b.tree(), 0, files.put_in_place

    def full(part: Path, path: Path) -> None:
        nonlocal count
        count += 1
        if count >= fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        put_in_place(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "put_in_place", full)
        with pytest.raises(DiskFullError):
            await b.pull()
    assert set(before) <= set(b.tree())
    assert not list(b.place.config.rglob("*.part"))
    assert b.text("CLAUDE.md") == "of b\n"
    taken = await b.pull()
    assert taken.settled.unwritten == {}
    assert json.loads(b.text("settings.json")) == {"env": {"A": "1"}, "model": "haiku", "language": "en"}
    assert b.text("rules/a.md") == "a\n"


async def test_a_file_that_changes_during_the_pull_is_left_and_comes_with_the_next(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    a.write("rules/a.md", "one\n")
    a.settings({"model": "opus"})
    await a.push()
    await b.pull()
    a.write("rules/a.md", "two\n")
    a.settings({"model": "sonnet"})
    await a.push()
    planned = settle._writes

    def changed(*arguments: object) -> object:
        b.write("rules/a.md", "changed by Claude Code\n")
        return planned(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(settle, "_writes", changed)
        taken = await b.pull()
    assert taken.settled.unwritten == {"rules/a.md": "it was changed during the pull: run it again"}
    assert b.text("rules/a.md") == "changed by Claude Code\n"
    assert b.read_settings() == {"model": "sonnet"}
    # Now it is what both changed.
    await b.pull()
    assert b.text("rules/a.md") == "changed by Claude Code\n"
    assert b.text("rules/a.md.theirs-a-2") == "two\n"
