"""The old tool's commands with a daemon that runs."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from membridge.claudemem.memory import memory_rows
from membridge.testing.node_process import NodeProcess
from tests.fixtures.machines import SOON, MakeMachine

Status = dict[str, Any]


def count(machine: NodeProcess) -> int:
    return sum(map(len, memory_rows(machine.database).values()))


async def test_the_old_tools_commands_keep_their_exit_codes_with_a_daemon(make_machine: MakeMachine) -> None:
    a, b = make_machine("a", memory=True), make_machine("b")
    await a.start()
    await _answers(a, lambda seen: int(seen["project"]["mirror_seq"]) >= 1)
    await b.start()
    await _answers(b, lambda seen: int(seen["project"]["mirror_seq"]) >= 1)
    assert (await a.command("push_sqlite"))[0] == 0
    code, output = await b.command("push_sqlite")
    assert (code, "not primary" in output) == (3, True), output
    assert (await b.command("pull_sqlite"))[0] == 0
    await a.write(1, "not pushed yet")
    code, output = await a.command("pull_sqlite")
    # The automatic push may have been faster: then nothing differs, and nothing is refused.
    assert code in {0, 2}, output
    assert code == 0 or "ALLOW_PRIMARY_PULL_OVERRIDE" in output
    assert count(a) >= 495


async def _answers(machine: NodeProcess, wanted: Callable[[Status], bool]) -> Status:
    """Ask by command until the status is as wanted."""
    seen: Status = {}
    try:
        async with asyncio.timeout(SOON):
            while True:
                code, output = await machine.command("status", "--json")
                if code == 0:
                    seen = json.loads(output)
                    if wanted(seen):
                        return seen
    except TimeoutError:
        pytest.fail(f"{seen}\n{machine.log.read_text()[-3000:]}")
