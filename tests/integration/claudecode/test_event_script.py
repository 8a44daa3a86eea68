"""`event.sh` puts each event into the spool once and whole; whatever is broken, it prints nothing and exits 0."""

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from membridge.hooks.paths import MOST_BODY_BYTES, MOST_FILES, HookPaths, hook_paths
from tests.faults.shim import Mode, State, build
from tests.integration.claudecode.conftest import SHELLS, Scripts

EVENT = json.dumps({"session_id": "s-1", "hook_event_name": "Stop", "cwd": "/work"}).encode()


@pytest.fixture
def spool(state: Path) -> HookPaths:
    return hook_paths(state)


def silent(done: CompletedProcess[bytes]) -> bool:
    return (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def files(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.iterdir()]


@pytest.mark.parametrize("shell", SHELLS)
def test_an_event_is_a_file_of_the_spool(scripts: Scripts, spool: HookPaths, shell: str) -> None:
    assert silent(scripts.run("event.sh", "Stop", stdin=EVENT, shell=SHELLS[shell]))

    assert files(spool.new) == [b"membridge 1 Stop -\n" + EVENT]
    assert not files(spool.incoming)
    (file,) = spool.new.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "environment", "project"),
    [
        (["--project", "boat plans"], {"CLAUDE_PROJECT_ID": "other"}, b"boat plans"),
        ([], {"CLAUDE_PROJECT_ID": "other"}, b"other"),
        ([], {"CLAUDE_PROJECT_ID": "two\nlines"}, b"-"),
        ([], {"CLAUDE_PROJECT_ID": ""}, b"-"),
    ],
)
def test_the_project_is_from_the_option_then_from_the_session(
    scripts: Scripts, spool: HookPaths, arguments: list[str], environment: dict[str, str], project: bytes
) -> None:
    assert silent(scripts.run("event.sh", "SessionEnd", *arguments, stdin=EVENT, **environment))

    assert files(spool.new) == [b"membridge 1 SessionEnd " + project + b"\n" + EVENT]


@pytest.mark.parametrize("shell", SHELLS)
def test_ten_mebibytes_are_read_to_the_end_and_cut(scripts: Scripts, spool: HookPaths, shell: str) -> None:
    prompt = json.dumps({"session_id": "s-1", "prompt": "x" * (10 << 20)}).encode()

    # A pipe that closes early would raise BrokenPipeError here, as it would be an error to Claude Code.
    assert silent(scripts.run("event.sh", "UserPromptSubmit", stdin=prompt, shell=SHELLS[shell]))

    assert files(spool.new) == [b"membridge 1 UserPromptSubmit -\n" + prompt[:MOST_BODY_BYTES]]


@pytest.mark.parametrize("body", [b"", b"{", b"\x00\xff not JSON", b"null\n\n"])
def test_what_is_not_json_is_for_the_daemon_to_judge(scripts: Scripts, spool: HookPaths, body: bytes) -> None:
    assert silent(scripts.run("event.sh", "Stop", stdin=body))

    assert files(spool.new) == [b"membridge 1 Stop -\n" + body]


def test_a_hundred_at_once_are_a_hundred_files(scripts: Scripts, spool: HookPaths) -> None:
    bodies = [b'{"session_id":"s-%d"}' % number for number in range(100)]
    together = threading.Barrier(len(bodies))

    def send(body: bytes) -> bool:
        together.wait()
        return silent(scripts.run("event.sh", "Stop", stdin=body))

    with ThreadPoolExecutor(len(bodies)) as pool:
        assert all(pool.map(send, bodies))

    assert sorted(files(spool.new)) == sorted(b"membridge 1 Stop -\n" + body for body in bodies)
    assert not files(spool.incoming)


def test_a_name_that_is_taken_is_not_overwritten(scripts: Scripts, spool: HookPaths, tmp_path: Path) -> None:
    # Where the system gives no unique id, the process ids do: a later process may get the same ones.
    script = scripts.folder / "event.sh"
    script.write_text(
        script.read_text().replace("/proc/sys/kernel/random/uuid", "/nowhere").replace("$PPID-$$-", "1-2-")
    )

    for number in range(3):
        assert silent(scripts.run("event.sh", "Stop", stdin=b"%d" % number))

    assert sorted(files(spool.new)) == [b"membridge 1 Stop -\n%d" % number for number in range(3)]


def test_a_full_spool_drops_the_event(scripts: Scripts, spool: HookPaths) -> None:
    for number in range(MOST_FILES):
        (spool.new / f"{number:05}").touch()

    assert silent(scripts.run("event.sh", "Stop", stdin=b"x" * (1 << 20)))
    assert len(list(spool.new.iterdir())) == MOST_FILES

    (spool.new / "00000").unlink()
    assert silent(scripts.run("event.sh", "Stop", stdin=EVENT))
    assert len(list(spool.new.iterdir())) == MOST_FILES


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("broken", ["no spool", "no new", "a file", "no paths", "torn paths", "no programs"])
def test_whatever_is_broken_a_session_does_not_notice(
    scripts: Scripts, spool: HookPaths, shell: str, broken: str
) -> None:
    environment: dict[str, str] = {}
    match broken:
        case "no spool":
            shutil.rmtree(spool.spool)
        case "no new":
            spool.new.rmdir()
        case "a file":
            shutil.rmtree(spool.spool)
            spool.spool.touch()
        case "no paths":
            (scripts.folder / "paths.sh").unlink()
        case "torn paths":
            (scripts.folder / "paths.sh").write_text("spool='/nowhere\nif then (")
        case _:
            environment["PATH"] = "/nowhere"
    interpreter = (shutil.which(SHELLS[shell][0]) or "", *SHELLS[shell][1:])

    assert silent(scripts.run("event.sh", "Stop", stdin=EVENT, shell=interpreter, **environment))

    # Without programs there is no rm either: the daemon removes what is old there.
    assert broken == "no programs" or not spool.incoming.is_dir() or not files(spool.incoming)
    # Nothing is made anew: after `membridge uninstall hooks` a session that still runs leaves no trace.
    assert broken != "no spool" or not spool.spool.exists()


def test_without_written_paths_it_finds_the_default_spool(scripts: Scripts, spool: HookPaths) -> None:
    (scripts.folder / "paths.sh").unlink()

    assert silent(scripts.run("event.sh", "Stop", stdin=EVENT, MEMBRIDGE_STATE_DIR=str(spool.spool.parent)))

    assert files(spool.new) == [b"membridge 1 Stop -\n" + EVENT]


@pytest.mark.parametrize("mode", [Mode.FULL, Mode.BROKEN, Mode.KILL], ids=lambda mode: mode.name.lower())
def test_a_disk_that_fails_at_any_step_leaves_a_whole_event_or_none(
    scripts: Scripts, spool: HookPaths, tmp_path: Path, mode: Mode
) -> None:
    shim = State(tmp_path / "shim")
    environment = {**shim.environment(build(tmp_path), {}), "PATH": os.environ["PATH"]}
    whole = 0

    def run(number: int, wanted: Mode) -> CompletedProcess[bytes]:
        shim.set(wanted, number, spool.spool)
        shim.arm()
        return scripts.run("event.sh", "Stop", stdin=EVENT, **environment)

    assert silent(run(0, Mode.COUNT))
    steps = shim.count
    assert steps >= 3, [str(step) for step in shim.steps()]
    for number in range(1, steps + 1):
        for file in [*spool.new.iterdir(), *spool.incoming.iterdir()]:
            file.unlink()
        done = run(number, mode)
        assert mode is Mode.KILL or silent(done)
        assert files(spool.new) in ([], [b"membridge 1 Stop -\n" + EVENT])
        # What cannot be written is not left behind; only a kill can leave it, and the daemon removes that.
        assert mode is Mode.KILL or not files(spool.incoming)
        whole += len(files(spool.new))
    assert whole < steps
    shim.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_disk_that_is_full_in_the_middle_of_an_event_drops_it(scripts: Scripts, spool: HookPaths, shell: str) -> None:
    # A file may not grow over 1 or 2 KiB: `head` writes a part, then fails.
    limited = ("/bin/sh", "-c", 'ulimit -f 2; exec "$@"', "sh", *SHELLS[shell])

    assert silent(scripts.run("event.sh", "Stop", stdin=b"x" * 5000, shell=limited))

    assert (files(spool.new), files(spool.incoming)) == ([], [])
