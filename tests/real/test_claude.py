"""A task from the command line to the real Claude CLI and back, with a stand-in of the Messages API on loopback."""

import json
from pathlib import Path

import pytest

from membridge.testing.node_process import NodeProcess
from tests.fixtures.machines import command
from tests.integration.access.sites import eventually, free_port
from tests.real.fetch import fetch_claude
from tests.real.messages_api import MessagesApi, messages_api

pytestmark = pytest.mark.real


def machine(tmp_path: Path, api: MessagesApi) -> NodeProcess:
    extra = {
        "MEMBRIDGE_COORDINATOR": "1",
        "MEMBRIDGE_WORKER": "1",
        "MEMBRIDGE_CLAUDE": str(fetch_claude()),
        "ANTHROPIC_BASE_URL": api.url,
        "ANTHROPIC_API_KEY": "of-nobody",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "IS_SANDBOX": "1",
    }
    return NodeProcess("a", tmp_path / "a", f"nats://127.0.0.1:{free_port()}", "shared", extra=extra)


async def test_a_context_goes_on_in_its_session(tmp_path: Path) -> None:
    async with messages_api() as api:
        a = machine(tmp_path, api)
        await a.start("up")
        try:

            async def has_worker() -> bool:
                code, output = await a.command("worker", "list", "--json")
                return code == 0 and [one["status"] for one in json.loads(output)["workers"]] == ["online"]

            await eventually(has_worker, a)
            work = tmp_path / "a" / ".local" / "state" / "membridge" / "work"
            there = ("--context", "the anchor chain")
            (work / "notes.md").write_text("the anchor chain is 40 m long")
            first = await command(a, "task", "submit", "how long is it?", *there, "--hint", "notes.md", "--wait")
            assert first["result"]["output"] == "the stand-in speaks"
            assert first["result"]["metrics"]["tokens_used"] == 16
            assert first["artifact"]["content"] == "the stand-in speaks"
            assert "the anchor chain is 40 m long" in json.dumps(api.asked[0])
            second = await command(a, "task", "submit", "and in feet?", *there, "--wait")
            assert second["task"]["status"] == "completed"
            said = json.dumps(api.asked[-1]["messages"])
            assert "how long is it?" in said
            assert "and in feet?" in said
            api.text = '```json\n{"feet": 131}\n```'
            code, output = await a.command("task", "submit", "as JSON", "--format", "json", "--wait")
            assert code == 0
            assert '{"feet": 131}' in output
            assert "of-nobody" not in a.log.read_text()
        finally:
            await a.stop()
