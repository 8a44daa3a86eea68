"""A copy of the state folder, as docs/recovery.md says, brings a lost one back, and nothing that came since is lost."""

import json
import shutil
from pathlib import Path

from membridge.claudemem.memory import memory_rows
from membridge.testing.writer import write
from tests.fixtures.machines import SAMPLE
from tests.fixtures.ports import free_ports
from tests.fixtures.terminal import UP, Shell


async def test_a_copied_state_folder_goes_on_where_it_was(tmp_path: Path) -> None:
    nats, gateway = free_ports(2)
    machine = Shell("first", tmp_path / "first", nats=nats, gateway=gateway)
    state, copy = machine.home / ".local" / "state" / "membridge", tmp_path / "copy"
    machine.database.parent.mkdir()
    shutil.copyfile(SAMPLE, machine.database)
    at_first = memory_rows(machine.database)

    async def runs() -> None:
        await machine.left_open("membridge up")
        await machine.shows(UP)
        await machine.typed("membridge push")

    try:
        await runs()
        await machine.typed("membridge tag before")
        await machine.interrupt()
        shutil.copytree(state, copy)
        write(str(machine.database), 3, "after the copy")
        await runs()
        await machine.interrupt()
        shutil.rmtree(state)
        shutil.copytree(copy, state)

        await runs()

        await machine.typed("membridge tag after && membridge verify")
        for tag in ("before", "after"):
            await machine.typed(f"membridge restore --tag {tag} --to {tag}.db")
        before, after = (memory_rows(machine.home / f"{tag}.db") for tag in ("before", "after"))
        assert after == memory_rows(machine.database)
        assert len(after["observations"] - before["observations"]) == 3
        assert before == at_first
        told = json.loads(await machine.typed("membridge status --json"))
        assert told["project"]["unsynced"] == 0
    finally:
        await machine.interrupt()
