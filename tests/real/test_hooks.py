"""The plugin in the real Claude CLI: memory that is fresh before claude-mem reads it, events, and a daemon that fails.

The newest Claude Code, one that has no modules yet, and one that loads no plugin from a folder, beside claude-mem's own
plugin and worker.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from membridge.claudecode.plugin import SHIPPED
from membridge.hooks.paths import BEAT_STALE, MOST_BODY_BYTES, hook_paths
from membridge.system import clock
from tests.fixtures.hook_daemon import Behaviour, hook_daemon, state
from tests.real.claude_session import Claude, events_of
from tests.real.fetch import ClaudeCode, fetch, fetch_claude
from tests.real.messages_api import messages_api
from tests.real.worker import Worker, environment_of, start_worker

__all__ = ["state"]

pytestmark = pytest.mark.real

LINE = "Membridge: the memory is fresh as of a second ago."
#: Seconds that the plugin of the tests may wait, and a whole session take. What cannot be given up takes 30.
WAIT, MOST = 1.0, 25.0


@asynccontextmanager
async def claude(home: Path, state: Path, version: ClaudeCode = ClaudeCode.NEWEST) -> AsyncGenerator[Claude]:
    """Yield a Claude CLI with the plugin."""
    async with messages_api() as api:
        found = Claude(fetch_claude(version), home, api)
        found.work.mkdir(parents=True)
        found.install_hooks(state, wait_seconds=WAIT)
        yield found


@pytest.fixture
def worker(tmp_path: Path) -> Generator[Worker]:
    with start_worker(tmp_path / "home") as worker:
        yield worker


def remember(worker: Worker, title: str) -> None:
    """Store an observation of a kind that claude-mem injects, of the project `work`, as a session does."""
    now = clock.now()
    epoch = int(now.timestamp() * 1000)
    stamps = {"created_at": now.isoformat(), "created_at_epoch": epoch, "project": "work"}
    session = {"content_session_id": f"c{epoch}", "memory_session_id": f"m{epoch}", "project": "work"}
    session |= {"user_prompt": "p", "started_at": now.isoformat(), "started_at_epoch": epoch, "status": "active"}
    session |= {"completed_at": None, "completed_at_epoch": None}
    observation = {"memory_session_id": f"m{epoch}", "text": None, "type": "discovery", "subtitle": None, "facts": "[]"}
    observation |= {"concepts": '["how-it-works"]', "files_read": "[]", "files_modified": "[]", "prompt_number": 1}
    observation |= {"title": title, "narrative": title}
    worker.bring({"sessions": [session], "observations": [observation | stamps], "summaries": [], "prompts": []})


def beside_claude_mem(found: Claude, worker: Worker) -> None:
    """Let sessions use claude-mem's plugin and this worker."""
    found.plugins.append(fetch().worker_script.parents[1])
    found.extra.update(environment_of(worker))


@pytest.mark.parametrize("version", ClaudeCode)
async def test_our_line_and_claude_mems_context_are_in_the_request(
    tmp_path: Path, state: Path, worker: Worker, version: ClaudeCode
) -> None:
    await asyncio.to_thread(remember, worker, "the boat is painted green")
    async with claude(tmp_path / "home", state, version) as found, hook_daemon(state) as daemon:
        beside_claude_mem(found, worker)
        daemon.context = LINE
        found.extra["CLAUDE_PROJECT_ID"] = "boat plans"

        session = await found.session("hello boat")

        assert (session.code, session.output, session.errors) == (0, "the stand-in speaks\n", "")
        assert session.sent.count(LINE) == 1
        assert "the boat is painted green" in session.sent
        assert version is not ClaudeCode.NEWEST or session.sent.index(LINE) < session.sent.index(
            "the boat is painted green"
        )
        (asked,) = daemon.asked
        assert (asked.folder, asked.texts["source"], asked.project) == (str(found.work), "startup", "boat plans")
        # Beside claude-mem the older versions run no SessionEnd hook of any plugin.
        events = await events_of(state, 4 if version is ClaudeCode.NEWEST else 3)
        assert {*events} >= {"SessionStart", "UserPromptSubmit", "Stop"}
        assert events["SessionStart"]["session_id"] == asked.texts["session_id"]
        assert {head.rpartition("1 ")[2].partition(" ")[2] for head, _ in daemon.events()} == {"boat plans"}


async def test_what_the_daemon_merges_meanwhile_claude_mem_injects(tmp_path: Path, state: Path, worker: Worker) -> None:
    async with claude(tmp_path / "home", state) as found, hook_daemon(state) as daemon:
        beside_claude_mem(found, worker)
        daemon.context = LINE

        # As a pull does: the row of the other machine is in the database when the daemon answers.
        async def merge() -> None:
            await asyncio.to_thread(remember, worker, "written on another machine")

        daemon.before_answer = merge

        session = await found.session("hello boat")

        assert session.code == 0
        assert session.sent.index(LINE) < session.sent.index("written on another machine")


@pytest.mark.parametrize("version", ClaudeCode)
async def test_a_session_leaves_four_events(tmp_path: Path, state: Path, version: ClaudeCode) -> None:
    async with claude(tmp_path / "home", state, version) as found:
        # Only a version that loads no folder has the hooks in its settings.
        assert (found.home / ".claude" / "settings.json").exists() is (version is ClaudeCode.WITHOUT_FOLDERS)
        session = await found.session("hello spool")

        assert (session.code, session.output, session.errors) == (0, "the stand-in speaks\n", "")
        events = await events_of(state, 4)
        assert set(events) == {"SessionStart", "UserPromptSubmit", "Stop", "SessionEnd"}
        assert len({event["session_id"] for event in events.values()}) == 1
        assert all(event["hook_event_name"] == name for name, event in events.items())
        assert events["UserPromptSubmit"]["prompt"] == "hello spool"


@pytest.mark.parametrize("version", ClaudeCode)
@pytest.mark.parametrize("fault", ["away", "killed", "stale", "hung", "torn", "no spool"])
async def test_a_session_does_not_notice_a_daemon_that_fails(
    tmp_path: Path, state: Path, fault: str, version: ClaudeCode
) -> None:
    async with claude(tmp_path / "home", state, version) as found:
        match fault:
            case "away":
                session = await found.session("hello")
            case "killed":
                async with hook_daemon(state):
                    pass
                session = await found.session("hello")
            case "no spool":
                for folder in (hook_paths(state).new, hook_paths(state).incoming, hook_paths(state).spool):
                    folder.rmdir()
                session = await found.session("hello")
            case _:
                async with hook_daemon(state) as daemon:
                    daemon.behaviour = Behaviour.IS_TORN if fault == "torn" else Behaviour.HANGS
                    daemon.beat(seconds_ago=BEAT_STALE + 60.0 if fault == "stale" else -60.0)
                    session = await found.session("hello")
                    assert len(daemon.asked) == (0 if fault == "stale" else 1)

        assert (session.code, session.output, session.errors) == (0, "the stand-in speaks\n", "")
        assert session.seconds < MOST
        assert "Membridge" not in session.sent
        assert "membridge" not in session.sent


async def test_a_plugin_of_the_marketplace_finds_the_daemon_by_its_defaults(tmp_path: Path, state: Path) -> None:
    async with messages_api() as api, hook_daemon(state) as daemon:
        daemon.context = LINE
        found = Claude(fetch_claude(), tmp_path / "home", api, [SHIPPED], {"MEMBRIDGE_STATE_DIR": str(state)})

        session = await found.session("hello")

        assert (session.code, session.errors) == (0, "")
        assert session.sent.count(LINE) == len(daemon.asked) == 1
        assert set(await events_of(state, 4)) == {"SessionStart", "UserPromptSubmit", "Stop", "SessionEnd"}
        assert len(daemon.events()) == 4


async def test_a_long_prompt_is_cut_in_the_spool_alone(tmp_path: Path, state: Path) -> None:
    async with claude(tmp_path / "home", state) as found:
        session = await found.session("x" * 100_000)

        assert (session.code, session.output, session.errors) == (0, "the stand-in speaks\n", "")
        assert "x" * 100_000 in session.sent
        sizes = sorted(file.stat().st_size for file in hook_paths(state).new.iterdir())
        assert sizes[-1] == len("membridge 1 UserPromptSubmit -\n") + MOST_BODY_BYTES


async def test_claude_code_lists_and_accepts_the_plugin(tmp_path: Path, state: Path) -> None:
    async with claude(tmp_path / "home", state) as found:
        code, output, errors = await found.run(
            "plugin", "validate", "--strict", "--profile", "directory", "--json", str(SHIPPED)
        )
        assert (code, errors) == (0, "")
        assert json.loads(output)["success"] is True

        code, output, errors = await found.run("plugin", "validate", "--strict", str(SHIPPED.parents[1]))
        assert (code, errors) == (0, "")

        installed = found.home / ".claude" / "skills" / "membridge"
        code, output, errors = await found.run("plugin", "validate", "--strict", str(installed))
        assert (code, errors) == (0, ""), output

        code, output, errors = await found.run("plugin", "list")
        assert "membridge@skills-dir" in output
