"""Hooks come and go without a trace, whatever was there before, and wherever the command is killed."""

import errno
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from membridge.claudecode.installation import install, uninstall
from membridge.claudecode.place import Place
from membridge.claudecode.plugin import MANIFEST, MODULE, SHIPPED, Reach, shipped
from membridge.errors import ConflictError, InvalidRequestError, MembridgeError
from membridge.hooks.paths import hook_paths, make_spool
from membridge.system import files
from tests.fixtures.broken_disk import DISK

OLD = {"type": "command", "command": "~/.claude-mem-minio/bin/claude-mem-hook-pull --project claude-mem"}
THEIRS = {"type": "command", "command": "say done"}
SETTINGS = json.dumps({"model": "x", "hooks": {"SessionStart": [{"hooks": [OLD]}], "Stop": [{"hooks": [THEIRS]}]}})
#: More calls than an installation makes.
MOST_CALLS = 400


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Force nothing to the disk: processes are killed here, not machines."""
    monkeypatch.setattr(files, "sync", lambda _descriptor: None)


def tree(home: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(home)): None if path.is_dir() else path.read_bytes() for path in sorted(home.rglob("*"))
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home that is in use: the settings, a skill of the user's, a folder for state."""
    home = tmp_path / "home of 'me'"
    (home / ".claude" / "skills" / "mine").mkdir(parents=True)
    (home / ".claude" / "skills" / "mine" / "SKILL.md").write_text("mine")
    (home / ".claude" / "settings.json").write_text(SETTINGS)
    (home / ".local" / "state").mkdir(parents=True)
    return home


def place_in(home: Path) -> Place:
    return Place(home / ".claude", home / ".local" / "state" / "membridge")


def reach_in(home: Path, **changed: object) -> Reach:
    paths = hook_paths(place_in(home).state)
    values = {"wait_seconds": 5.0, **changed}
    return Reach(spool=paths.spool, run=paths.run, **values)  # type: ignore[arg-type]


def put(home: Path, *, into_settings: bool = False, replace_old: bool = False, **changed: object) -> tuple[bool, int]:
    done = install(
        place_in(home), SHIPPED, reach_in(home, **changed), into_settings=into_settings, replace_old=replace_old
    )
    make_spool(hook_paths(place_in(home).state))
    return done.changed_settings, len(done.old_hooks)


def take(home: Path) -> tuple[bool, int, bool]:
    done = uninstall(place_in(home), SHIPPED, spool=hook_paths(place_in(home).state).spool)
    return done.was_there, len(done.foreign), done.backup is not None


@pytest.mark.parametrize("into_settings", [False, True])
@pytest.mark.parametrize("replace_old", [False, True])
def test_uninstall_leaves_the_tree_as_it_was(home: Path, into_settings: bool, replace_old: bool) -> None:
    before = tree(home)

    assert put(home, into_settings=into_settings, replace_old=replace_old) == (into_settings or replace_old, 1)

    settings = json.loads((home / ".claude" / "settings.json").read_text())
    commands = [hook["command"] for groups in settings["hooks"].values() for group in groups for hook in group["hooks"]]
    assert (OLD["command"] in commands) is not replace_old
    assert THEIRS["command"] in commands
    assert len(commands) == 2 - replace_old + 4 * into_settings
    if not (into_settings or replace_old):
        assert tree(home)[".claude/settings.json"] == before[".claude/settings.json"]
    # What it did is not done twice.
    now = tree(home)
    put(home, into_settings=into_settings, replace_old=replace_old)
    assert tree(home) == now

    assert take(home) == (True, 0, False)
    assert tree(home) == before
    assert take(home) == (False, 0, False)
    assert tree(home) == before


def test_an_empty_home_is_empty_again(tmp_path: Path) -> None:
    home = tmp_path / "home"

    assert put(home, into_settings=True) == (True, 0)
    assert take(home) == (True, 0, False)

    assert not home.exists()


def test_the_plugin_is_what_is_shipped_and_where_the_daemon_is(home: Path) -> None:
    put(home, project="boat 'plans'")
    folder = place_in(home).plugin

    found = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    brought = shipped(SHIPPED)
    assert {path for path, body in brought.items() if found[path] != body} == {MODULE}
    was, now = brought[MODULE].decode().splitlines(), found[MODULE].decode().splitlines()
    [(before, after)] = [pair for pair in zip(was, now, strict=True) if pair[0] != pair[1]]
    assert before == "const paths = null"
    told_module = json.loads(after.removeprefix("const paths = "))
    paths = hook_paths(place_in(home).state)
    told = {
        "spool": str(paths.spool),
        "run": str(paths.run),
        "wait_seconds": 5.0,
        "project": "boat 'plans'",
    }
    assert json.loads(found[Path("paths.json")]) == told
    assert told_module == {"run": told["run"], "waitSeconds": 5.0, "project": told["project"]}
    shell = dict(line.split("=", 1) for line in found[Path("paths.sh")].decode().splitlines()[1:])
    assert {name: shlex.split(value) for name, value in shell.items()} == {
        name: [str(value)] for name, value in told.items()
    }
    assert paths.new.is_dir()


def test_an_upgrade_changes_what_differs_and_removes_what_is_gone(home: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    for path, content in shipped(SHIPPED).items():
        (older / path).parent.mkdir(parents=True, exist_ok=True)
        (older / path).write_bytes(content)
    (older / "event.sh").write_text("old")
    (older / "bin").mkdir()
    (older / "bin" / "gone").write_text("gone")
    before = tree(home)
    install(place_in(home), older, reach_in(home), into_settings=False, replace_old=False)
    kept = (place_in(home).plugin / "icon.png").stat().st_mtime_ns

    put(home, wait_seconds=2.0)

    assert not (place_in(home).plugin / "bin").exists()
    assert (place_in(home).plugin / "event.sh").read_bytes() == (SHIPPED / "event.sh").read_bytes()
    assert (place_in(home).plugin / "icon.png").stat().st_mtime_ns == kept
    take(home)
    assert tree(home) == before


def test_a_newer_claude_code_needs_no_hooks_in_settings(home: Path) -> None:
    before = tree(home)
    put(home, into_settings=True)

    assert put(home, into_settings=False) == (True, 1)

    assert json.loads((home / ".claude" / "settings.json").read_text()) == json.loads(SETTINGS)
    take(home)
    assert json.loads(tree(home)[".claude/settings.json"] or b"") == json.loads(before[".claude/settings.json"] or b"")


def test_settings_that_changed_since_keep_the_change(home: Path) -> None:
    put(home, into_settings=True, replace_old=True)
    file = home / ".claude" / "settings.json"
    settings = json.loads(file.read_text())
    settings["theme"] = "dark"
    file.write_text(json.dumps(settings))

    # Only the backup still has the hook of the old tool.
    assert take(home) == (True, 0, True)

    assert json.loads(file.read_text()) == {
        "model": "x", "hooks": {"Stop": [{"hooks": [THEIRS]}]}, "theme": "dark",
    }  # fmt: skip
    assert json.loads(place_in(home).backup.read_text()) == json.loads(SETTINGS)


def test_settings_that_are_broken_stop_only_what_would_change_them(home: Path) -> None:
    (home / ".claude" / "settings.json").write_text("{ broken")

    assert put(home) == (False, 0)
    for changes in ({"into_settings": True}, {"replace_old": True}):
        with pytest.raises(InvalidRequestError, match="is not valid JSON"):
            put(home, **changes)

    assert (home / ".claude" / "settings.json").read_text() == "{ broken"
    assert take(home)[0]


@pytest.mark.parametrize("how", ["a link", "a folder", "a file"])
def test_what_took_the_place_of_the_plugin_stays(home: Path, tmp_path: Path, how: str) -> None:
    put(home)
    folder, own = place_in(home).plugin, tmp_path / "own"
    folder.rename(tmp_path / "old")
    own.mkdir()
    (own / "event.sh").write_text("mine")
    match how:
        case "a link":
            folder.symlink_to(own)
        case "a folder":
            own.rename(folder)
        case _:
            folder.write_text("mine")
    removed = uninstall(place_in(home), SHIPPED, spool=None)

    assert (removed.was_there, removed.foreign) == (False, (folder,))
    kept = folder if how == "a file" else folder / "event.sh"
    assert kept.read_text() == "mine"
    assert folder.is_symlink() is (how == "a link")
    assert not place_in(home).receipt.exists()


def test_what_the_user_put_into_the_folder_stays(home: Path) -> None:
    put(home)
    notes = place_in(home).plugin / "notes.txt"
    notes.write_text("mine")

    assert take(home) == (True, 1, False)

    assert [path.name for path in place_in(home).plugin.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("kind", ["file", "skill", "link"])
def test_something_else_in_its_place_is_left_alone(home: Path, kind: str) -> None:
    plugin = place_in(home).plugin
    match kind:
        case "file":
            plugin.write_text("mine")
        case "skill":
            plugin.mkdir()
            (plugin / "SKILL.md").write_text("mine")
        case _:
            plugin.symlink_to(home / ".claude" / "skills" / "mine", target_is_directory=True)
    before = tree(home)

    with pytest.raises(ConflictError, match="not Membridge's plugin") as failure:
        put(home)

    assert tree(home) == before
    assert shlex.split(failure.value.remedy.split("`")[1])[:2] == ["mv", str(plugin)]
    assert take(home) == (False, 0, False)
    assert tree(home) == before


def test_events_that_wait_stay_for_the_daemon(home: Path) -> None:
    put(home)
    waiting = hook_paths(place_in(home).state).new / "event"
    waiting.write_text("membridge 1 Stop -\n{}")

    take(home)

    assert waiting.exists()


def test_a_daemon_that_runs_keeps_its_spool(home: Path) -> None:
    put(home)

    uninstall(place_in(home), SHIPPED, spool=None)

    assert hook_paths(place_in(home).state).new.is_dir()


#: Calls that change the disk. One that opens a file counts if it is for writing.
_CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"}


def killed_at(number: int, home: Path, work: Callable[[Path], object]) -> bool:
    """Do the work in a child that dies before call `number` below the home; return whether it came to that."""
    child = os.fork()
    if child == 0:
        left = number

        def look(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event == "open" and not int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR):
                return
            if event in _CHANGES and str(arguments[0]).startswith(str(home)):
                left -= 1
                if left == 0:
                    os._exit(9)

        sys.addaudithook(look)
        try:
            work(home)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the parent sees the code
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {0, 9}
    return code == 9


def both(home: Path) -> None:
    put(home, into_settings=True, replace_old=True)


def test_an_installation_that_is_killed_anywhere_is_completed_or_removed(home: Path) -> None:
    before = tree(home)
    both(home)
    receipt = str(place_in(home).receipt.relative_to(home))
    complete = {**tree(home), receipt: b""}
    take(home)

    for number in range(1, MOST_CALLS):
        killed = killed_at(number, home, both)
        # A session never sees half a plugin: without the manifest the folder is none.
        plugin = place_in(home).plugin
        if (plugin / MANIFEST).exists():
            assert {path.name for path in plugin.iterdir()} >= {"event.sh", "session_start.sh", "paths.sh", "hooks"}
        json.loads((home / ".claude" / "settings.json").read_text())
        if number % 2:
            both(home)
            assert {**tree(home), receipt: b""} == complete
        take(home)
        assert tree(home) == before
        if not killed:
            break
    else:
        pytest.fail("the installation never came to its end")


def test_a_removal_that_is_killed_anywhere_is_completed(home: Path) -> None:
    before = tree(home)

    for number in range(1, MOST_CALLS):
        both(home)
        killed = killed_at(number, home, take)
        take(home)
        assert {name: content for name, content in tree(home).items() if name not in before} == {}
        assert tree(home) == before
        if not killed:
            break
    else:
        pytest.fail("the removal never came to its end")


def test_a_disk_that_fails_anywhere_is_an_error_of_ours(home: Path) -> None:
    before = tree(home)

    for number in range(1, MOST_CALLS):
        DISK.arm(home, number)
        try:
            both(home)
        except MembridgeError as error:
            assert os.strerror(errno.EIO) in str(error)  # noqa: PT017 - it may be raised, not must
        finally:
            failed = DISK.disarm()
        take(home)
        assert tree(home) == before, failed
        if not failed:
            break
    else:
        pytest.fail("the installation never came to its end")
