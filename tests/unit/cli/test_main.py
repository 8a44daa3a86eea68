"""How a run of `membridge` ends: text, JSON, exit code."""

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from membridge import __version__
from membridge.cli import main as cli
from membridge.cli.catalogue import Entry
from membridge.cli.command import LazyGroup
from membridge.errors import (
    DiskFullError,
    MembridgeError,
    PrimaryPullRefusedError,
    RemoteError,
    SecondaryPushBlockedError,
)
from schemas.errors import TABLE, ErrorCode, ErrorReply


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command line with an empty home."""
    for name in list(os.environ):
        if name.startswith(("MEMBRIDGE_", "MINIO_", "XDG_", "CLAUDE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MEMBRIDGE_NATS_URL", "nats://127.0.0.1:1")

    def with_environment(*arguments: str, **environ: str) -> int:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        return cli.main(arguments)

    return with_environment


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make the only command of the root fail with `error`."""

    @click.command("fail")
    @click.option("--json", "_", is_flag=True)
    def fail(_: bool) -> None:
        raise error

    group = LazyGroup("membridge", entries={"fail": Entry("nowhere:fail", "Fail.")}, summary="")
    monkeypatch.setattr(group, "get_command", lambda _context, _name: fail)
    monkeypatch.setattr(cli, "root", group)


def test_no_arguments_show_the_help(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    bare = capsys.readouterr().out
    assert run("--help") == 0

    assert capsys.readouterr().out == bare
    assert "push_sqlite" in bare


def test_what_a_disk_says_is_said_with_its_remedy(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = OSError(errno.EIO, os.strerror(errno.EIO), "/memory/journal.db")
    failing(monkeypatch, ExceptionGroup("parts failed", [broken]))

    assert run("fail") == 1

    said = capsys.readouterr().err
    assert "error: /memory/journal.db: Input/output error" in said
    assert "remedy: the disk may be failing" in said
    assert "unexpected" not in said


def test_the_version_is_shown(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0

    assert capsys.readouterr().out == f"membridge {__version__}\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DiskFullError("no room"), 1),
        (PrimaryPullRefusedError("refused"), 2),
        (SecondaryPushBlockedError("blocked"), 3),
        (RemoteError(ErrorReply(code=ErrorCode.SECONDARY_PUSH_BLOCKED, message="blocked")), 3),
        (ExceptionGroup("several", [ExceptionGroup("inner", [PrimaryPullRefusedError("refused")])]), 2),
        (ValueError("a bug"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_failure_has_its_exit_code(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    failing(monkeypatch, error)

    assert cli.main(["fail"]) == code


def test_an_error_is_one_line_and_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, DiskFullError("no room on /x", remedy="free some\x1b[2J"))

    cli.main(["fail"])

    found = capsys.readouterr()
    assert found.out == ""
    assert found.err == "error: no room on /x\n  remedy: free some?[2J\n"


def test_an_error_without_remedy_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, MembridgeError("it broke"))

    cli.main(["fail"])

    assert capsys.readouterr().err == "error: it broke\n"


def test_with_json_an_error_is_a_reply_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = ErrorReply(code=ErrorCode.DISK_FULL, message="no room", remedy="free some", request_id="r1")
    failing(monkeypatch, RemoteError(reply))

    assert cli.main(["fail", "--json"]) == TABLE[ErrorCode.DISK_FULL].exit

    found = capsys.readouterr()
    assert found.err == ""
    assert json.loads(found.out) == {
        "code": "disk_full", "message": "no room", "remedy": "free some", "field": None, "request_id": "r1",
    }  # fmt: skip


def test_an_unexpected_error_is_one_line_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MEMBRIDGE_DEV", raising=False)
    failing(monkeypatch, ValueError("at nats://me:secret@host\nsecond line"))

    assert cli.main(["fail"]) == 1

    assert capsys.readouterr().err == (
        "error: unexpected: ValueError: at nats://***@host second line\n  remedy: set MEMBRIDGE_DEV=1 to see where\n"
    )


def test_in_development_an_unexpected_error_brings_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEMBRIDGE_DEV", "1")
    failing(monkeypatch, ValueError("a bug"))

    cli.main(["fail"])

    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["push", "--nope"], "No such option '--nope'"),
        (["nope"], "No such command 'nope'"),
        (["history", "--limit", "0"], "0 is not in the range"),
        (["leader", "select"], "Missing argument 'NODE'"),
        (["push", "--project", ""], "a project name has 1 to 256 characters"),
    ],
)
def test_a_wrong_command_line_exits_with_1_never_with_2(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(*arguments) == 1

    lines = capsys.readouterr().err.splitlines()
    assert message in lines[0]
    assert lines[1].startswith("  remedy: see `membridge")


def test_a_wrong_command_line_with_json_is_json(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("push", "--json", "--nope") == 1

    assert json.loads(capsys.readouterr().out)["code"] == "invalid_request"


def test_a_wrong_setting_is_one_line(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", MEMBRIDGE_QUIET_SECONDS="soon") == 1

    assert capsys.readouterr().err == (
        "error: MEMBRIDGE_QUIET_SECONDS = 'soon': must be a number above 0, at most 60\n"
    )


def test_a_command_of_a_missing_part_harms_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = {"gone": Entry("membridge.cli.no_such_part:gone", "A part that is not here.")}
    monkeypatch.setattr(cli, "root", LazyGroup("membridge", entries=entries, summary="Summary."))

    assert cli.main(["--help"]) == 0
    assert cli.main(["gone"]) == 1

    found = capsys.readouterr()
    assert "A part that is not here." in found.out
    assert "`gone` is not part of this installation" in found.err


def test_the_help_answers_at_once() -> None:
    def seconds(*arguments: str) -> float:
        """Return the processor's time, which a busy machine makes little longer."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, timeout=30)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare = min(seconds("-c", "pass") for _ in range(3))
    # 100 ms on an idle machine, eight times the bare interpreter; that time tells how slow this one is.
    assert min(seconds("-m", "membridge.cli.main", "--help") for _ in range(5)) < max(0.3, 20 * bare)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["config", "show", "--json"], ["push", "--json"], ["push", "--help"]]
)
def test_rich_is_not_loaded_where_nobody_sees_a_table(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from membridge.cli.main import main\n"
        "main(sys.argv[1:])\n"
        "print([name for name in ('rich', 'botocore', 'aiohttp') if name in sys.modules], file=sys.stderr)\n"
    )
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MEMBRIDGE_NATS_URL": "nats://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environ, capture_output=True, text=True, check=True, timeout=30
    )

    assert done.stderr == "[]\n"


def test_a_misspelt_variable_is_pointed_out_beside_the_answer(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    slip = "MEMBRIDGE_QUIET_SECOND is not a setting: did you mean MEMBRIDGE_QUIET_SECONDS?"

    assert run("key", "--json", MEMBRIDGE_QUIET_SECOND="3") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["keys"] == []
    assert printed.err == f"warning: {slip}\n"

    # What shows or logs it itself says it once.
    assert run("config") == 0
    printed = capsys.readouterr()
    assert (printed.out.count(slip), printed.err) == (1, "")
    run("doctor")
    printed = capsys.readouterr()
    assert ("".join(printed.out.split()).count("".join(slip.split())), printed.err) == (1, "")


def test_a_daemon_logs_a_misspelt_variable(tmp_path: Path) -> None:
    environment = {
        "HOME": str(tmp_path), "PATH": os.environ["PATH"], "MEMBRIDGE_QUIET_SECOND": "3",
        "MEMBRIDGE_NATS_URL": "nats://127.0.0.1:1", "MEMBRIDGE_LOG_FORMAT": "json",
    }  # fmt: skip
    arguments = [sys.executable, "-m", "membridge.cli.main", "node"]

    ended = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)

    said = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    (warned,) = [line for line in said if line["event"] == "a setting needs a look"]
    assert "did you mean MEMBRIDGE_QUIET_SECONDS?" in warned["detail"]
    assert "warning:" not in ended.stderr
