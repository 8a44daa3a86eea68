"""Attempts with programs that answer, fail, lie, flood, hang and leave children behind."""

import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from membridge.worker import attempt, process
from membridge.worker.attempt import Claude
from membridge.worker.context import Sources
from membridge.worker.worker import AttemptResult
from schemas.leases import Lease, Order
from schemas.results import ResultStatus
from schemas.task_events import TaskEventKind
from schemas.tasks import OutputFormat, Policy, Task, TaskStatus

ID = "01234567-89ab-4cde-8f01-23456789abcd"
ANSWER = {"type": "result", "result": "done", "is_error": False, "session_id": "s-1",
          "usage": {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 5}}  # fmt: skip

Make = Callable[[str], Claude]


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def program(tmp_path: Path, told: list[str]) -> Make:
    """Make a `claude` of a few lines of Python."""

    def make(body: str) -> Claude:
        binary = tmp_path / "claude"
        prelude = "import json, os, signal, subprocess, sys, time\nANSWER = json.loads('" + json.dumps(ANSWER) + "')\n"
        binary.write_text(f"#!{sys.executable}\n{prelude}{body}\n")
        binary.chmod(0o700)
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)

        def tell(order: Order, kind: TaskEventKind, text: str) -> None:
            del order
            told.append(f"{kind.value}: {text}")

        return Claude(str(binary), ("--model", "x"), Sources(root=root), 100_000, tell)

    return make


def order(prompt: str = "hello", *, seconds: int = 30, form: OutputFormat = OutputFormat.TEXT, **more: object) -> Order:
    task = Task(
        id=ID, context_id="c", agent_slug="a", prompt=prompt, status=TaskStatus.LEASED, created_at="", updated_at="",
        policy=Policy(timeout_sec=seconds), desired_format=form,
    )  # fmt: skip
    lease = Lease(id=ID, task_id=ID, worker_id="w", started_at="", expires_at="", last_heartbeat="", context_id="c")
    return Order(task=task, lease=lease, **more)  # type: ignore[arg-type]


def failed(outcome: AttemptResult) -> str:
    assert outcome.status is ResultStatus.ERROR
    assert outcome.output is None
    return outcome.error_message or ""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_an_answer(program: Make, told: list[str]) -> None:
    claude = program(
        "ANSWER['result'] = sys.stdin.read() + ' ' + ' '.join(sys.argv[1:])\n"
        "print('thinking', file=sys.stderr)\nprint(json.dumps(ANSWER))"
    )
    outcome = await claude.attempt(order("hello", resumes="s-0"))
    assert outcome.status is ResultStatus.SUCCESS
    assert outcome.output == "hello -p --output-format json --model x --resume s-0"
    assert (outcome.metrics.tokens_used, outcome.session) == (12, "s-1")
    assert told == ["progress: context of 0 pieces, claude starts", "stderr: thinking"]


async def test_the_program_is_to_end_when_its_worker_is_killed(program: Make) -> None:
    # prctl(PR_GET_PDEATHSIG): the signal that the kernel sends it then.
    asked = "import ctypes\nnumber = ctypes.c_int()\nctypes.CDLL(None).prctl(2, ctypes.byref(number))\n"
    outcome = await program(f"{asked}ANSWER['result'] = str(number.value)\nprint(json.dumps(ANSWER))").attempt(order())
    assert outcome.output == str(int(signal.SIGTERM))


async def test_the_environment_is_an_allow_list(program: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIO_SECRET_KEY", "s3cret")
    monkeypatch.setenv("MEMBRIDGE_NATS_URL", "nats://u:p@h")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:1")
    outcome = await program("ANSWER['result'] = json.dumps(dict(os.environ))\nprint(json.dumps(ANSWER))").attempt(
        order(form=OutputFormat.JSON)
    )
    seen = json.loads(outcome.output or "")
    assert seen["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:1"
    assert not [name for name in seen if name.startswith(("MINIO_", "MEMBRIDGE_"))]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("print('no key', file=sys.stderr); sys.exit(3)", "claude exited with code 3 and printed no result\nno key"),
        ("print('hello')", "claude exited with code 0 and printed no result"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "claude was ended by signal 9"),
        ("sys.stdout.write('x' * 1_000_000)", "claude printed more than a result may have"),
        ("ANSWER['is_error'] = True; ANSWER['result'] = 'no credit'; print(json.dumps(ANSWER))", "no credit"),
        ("print(json.dumps({'result': 5}))", "printed no result"),
    ],
)
async def test_each_failure_is_one_message(program: Make, body: str, says: str) -> None:
    assert says in failed(await program(body).attempt(order()))


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ("ANSWER['result'] = 'a\\ud83d'; print(json.dumps(ANSWER))", "a\ud83d"),
        ("ANSWER['result'] = 'a\\0'; print(json.dumps(ANSWER))", "a\0"),
        (
            "sys.stdout.buffer.write(json.dumps(ANSWER).replace('done', 'd%').encode().replace(b'%', b'\\xff'))",
            "d\ufffd",
        ),
    ],
)
async def test_a_character_that_is_none_costs_no_answer(program: Make, body: str, output: str) -> None:
    outcome = await program(body).attempt(order())
    assert (outcome.status, outcome.output, outcome.session) == (ResultStatus.SUCCESS, output, "s-1")


async def test_a_file_whose_name_is_no_utf8_is_read(program: Make, tmp_path: Path) -> None:
    claude = program("ANSWER['result'] = sys.stdin.read()\nprint(json.dumps(ANSWER))")
    (tmp_path / "root" / os.fsdecode(b"caf\xe9.txt")).write_text("inside")
    hinted = order("hello", seconds=30)
    task = msgspec.structs.replace(hinted.task, context_hints=["*.txt"])
    outcome = await claude.attempt(msgspec.structs.replace(hinted, task=task))
    assert outcome.output == '<context source="caf\ufffd.txt">\ninside\n</context>\n\nhello'


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_pipe_stays_open_that_was_not_read_to_its_end(program: Make) -> None:
    gc.disable()
    try:
        before = descriptors()
        failed(await program("sys.stdout.write('x' * 4_000_000)").attempt(order()))
        # Pipes are closed in the next turn of the loop.
        await asyncio.sleep(0)
        assert descriptors() == before
    finally:
        gc.enable()


async def test_a_prompt_that_nobody_reads_and_a_flood_of_errors(program: Make, told: list[str]) -> None:
    claude = program(
        "os.close(0)\nfor n in range(5000): print('e' * 5000, n, file=sys.stderr)\nprint(json.dumps(ANSWER))"
    )
    outcome = await claude.attempt(order("x" * 1_000_000))
    assert outcome.output == "done"
    assert max(map(len, told)) <= process.LINE + len("stderr: ")


async def test_a_json_task_takes_json_alone(program: Make) -> None:
    speak = "ANSWER['result'] = {!r}\nprint(json.dumps(ANSWER))"
    wanted = order(form=OutputFormat.JSON)
    for text in ('{"a": 1}', '```json\n{"a": 1}\n```'):
        outcome = await program(speak.format(text)).attempt(wanted)
        assert json.loads(outcome.output or "") == {"a": 1}
    for text in ("here: {}", "NaN", ""):
        assert "is not JSON" in failed(await program(speak.format(text)).attempt(wanted))


async def test_a_session_that_is_gone_begins_anew(program: Make, told: list[str]) -> None:
    claude = program(
        "if '--resume' in sys.argv: print('No conversation found with session ID', file=sys.stderr); sys.exit(1)\n"
        "print(json.dumps(ANSWER))"
    )
    assert (await claude.attempt(order(resumes="gone"))).output == "done"
    assert "progress: its session is gone, claude starts a new one" in told


async def test_a_hang_is_ended_with_all_that_it_started(program: Make, tmp_path: Path) -> None:
    claude = program(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(1000)"
    )
    assert "longer than 1 s" in failed(await claude.attempt(order(seconds=1)))
    for pid in (tmp_path / "pids").read_text().split():
        await _gone(int(pid))


async def test_a_cancelled_attempt_leaves_nothing(program: Make, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    claude = program(
        "child = subprocess.Popen(['sleep', '1000'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\ntime.sleep(1000)"
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(claude.attempt(order()))
        found = (await asyncio.to_thread(pids.read_text)).split()
        running.cancel()
    for pid in found:
        await _gone(int(pid))


async def test_the_program_is_found_with_its_version(program: Make, tmp_path: Path) -> None:
    claude = program("print('2.0.1 (Claude Code)')")
    assert await attempt.find_claude(claude.binary) == (claude.binary, "2.0.1 (Claude Code)")
    assert await attempt.find_claude(str(tmp_path / "nothing")) is None
    assert await attempt.find_claude(program("sys.exit(1)").binary) is None


async def _gone(pid: int) -> None:
    async with asyncio.timeout(10.0):
        while alive(pid):  # noqa: ASYNC110 - no event tells of another program's child
            await asyncio.sleep(0)
