"""Pushes at once, lost answers, and stores that lost what they had: no change is lost, and none is undone."""

import asyncio
import secrets
from dataclasses import replace

import pytest

from membridge.bus import connection, jetstream
from membridge.bus.connection import Bus, connect
from membridge.bus.kv import Kv
from membridge.bus.options import BusOptions
from membridge.claudeconfig import shared_state
from membridge.claudeconfig.shared_state import Shared
from membridge.claudeconfig.three_way import Leaf
from membridge.errors import ConflictError, HeadMovedError, MembridgeError, ObjectMissingError
from membridge.objectstore.jetstream import open_jetstream
from schemas.claude_config import CLAUDE_CONFIG
from schemas.identity import NodeId, canonical_id
from tests.fixtures.relay import Losses, relayed
from tests.integration.claudeconfig.conftest import Machine, Machines, soon


async def keys(machine: Machine) -> list[str]:
    shared = machine.shared
    return [info.key async for info in shared.store.list(shared.prefix(), deadline=soon())]


async def test_pushes_at_once_all_arrive(machines: Machines) -> None:
    made = [await machines.make(name) for name in "abc"]
    for number, machine in enumerate(made):
        machine.write(f"rules/{number}.md", f"{number}\n")

    async with asyncio.TaskGroup() as group:
        for machine in made:
            group.create_task(machine.push())
    for machine in made:
        await machine.pull()
        assert sorted(machine.tree()) == ["rules/0.md", "rules/1.md", "rules/2.md"]
    head = await made[0].shared.heads.get(canonical_id("shared"), deadline=soon())
    assert head is not None
    assert head.value.seq == 3


async def test_a_push_on_an_old_head_changes_nothing(machines: Machines) -> None:
    a = await machines.make("a")
    a.write("CLAUDE.md", "one\n")
    await a.push()
    old = (await a.look()).known
    a.write("CLAUDE.md", "two\n")
    await a.push()

    with pytest.raises(HeadMovedError, match="nothing was sent"):
        await shared_state.commit(a.shared, {"CLAUDE.md": Leaf(b"late\n")}, old, deadline=soon())
    with pytest.raises(HeadMovedError):
        await shared_state.commit(a.shared, {"CLAUDE.md": Leaf(b"late\n")}, None, deadline=soon())
    assert (await a.look()).theirs == {"CLAUDE.md": Leaf(b"two\n")}


async def test_old_states_and_failed_pushes_do_not_pile_up(machines: Machines) -> None:
    a = await machines.make("a")
    for number in range(shared_state.KEPT + 4):
        a.write("CLAUDE.md", f"{number}\n")
        await a.push()
        if number < 2:
            # Uploaded by a push that was killed before it moved the head.
            orphan = f"{a.shared.prefix()}{number + 2:012d}-{secrets.token_hex(8)}.zst"
            await a.shared.store.put(orphan, b"killed", deadline=soon())

    assert len(await keys(a)) == shared_state.KEPT + 1


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that does not come is given up soon."""
    monkeypatch.setattr(connection, "ANSWER", 1.0)
    monkeypatch.setattr(jetstream, "ANSWER", 1.0)


@pytest.mark.usefixtures("impatient")
async def test_a_lost_answer_is_no_lost_push_and_no_second_one(machines: Machines, bus: Bus) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    losses = Losses()
    url = bus.options.urls[0]
    async with (
        relayed(url, losses) as through,
        connect(BusOptions(urls=(through,), name="lossy"), deadline=soon()) as lossy,
        open_jetstream(lossy) as store,
    ):
        heads = Kv(lossy, CLAUDE_CONFIG)
        kept = store if isinstance(machines.store, type(store)) else machines.store
        a = replace(a, shared=Shared(kept, heads, a.shared.project, NodeId("a")))
        for number in range(1, 4):
            a.write("CLAUDE.md", f"{number}\n")
            losses.arm(1, r"\$KV\.claude_config")
            # Either it is sure that its push was stored, or it says that it does not know.
            try:
                await a.push()
            except MembridgeError:
                losses.disarm()
                await a.push()
            assert losses.writes
            losses.disarm()
            await b.pull()
            assert b.text("CLAUDE.md") == f"{number}\n"
            assert not list(b.place.config.glob("*.theirs-*"))
            head = await b.shared.heads.get(canonical_id("shared"), deadline=soon())
            assert head is not None
            assert head.value.seq == number


async def test_a_kv_store_that_lost_its_memory_gets_the_head_back(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    a.write("CLAUDE.md", "one\n")
    await a.push()
    a.write("CLAUDE.md", "two\n")
    await a.push()
    await a.shared.heads.delete(a.shared.project, deadline=soon())
    await b.pull()
    assert b.text("CLAUDE.md") == "two\n"
    b.write("rules/b.md", "b\n")
    head = await b.push()
    assert head is not None
    assert head.seq == 3
    await a.pull()
    assert sorted(a.tree()) == ["CLAUDE.md", "rules/b.md"]


async def test_an_object_that_is_gone_or_damaged_is_replaced_by_the_next_push(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    a.write("CLAUDE.md", "one\n")
    await a.push()
    key = (await keys(a))[-1]
    await a.shared.store.delete(key, deadline=soon())
    with pytest.raises(ObjectMissingError) as gone:
        await b.pull()
    assert "membridge claude-config push" in gone.value.remedy
    await a.push()
    await b.pull()
    assert b.text("CLAUDE.md") == "one\n"
    key = (await keys(a))[-1]
    await a.shared.store.put(key, b"damaged", if_absent=False, deadline=soon())
    with pytest.raises(MembridgeError) as damaged:
        await b.pull()
    assert "membridge claude-config push" in damaged.value.remedy
    a.write("rules/a.md", "a\n")
    await a.push()
    await b.pull()
    assert sorted(b.tree()) == ["CLAUDE.md", "rules/a.md"]


async def test_a_server_that_lost_everything_is_filled_again(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    a.write("CLAUDE.md", "one\n")
    a.settings({"model": "opus"})
    await a.push()
    await b.pull()
    for key in await keys(a):
        await a.shared.store.delete(key, deadline=soon())
    await a.shared.heads.delete(a.shared.project, deadline=soon())
    b.write("CLAUDE.md", "of b\n")
    assert await b.push() is not None
    with pytest.raises(ConflictError):
        await a.push()
    await a.pull()
    assert a.text("CLAUDE.md") == "one\n"
    assert a.text("CLAUDE.md.theirs-b-1") == "of b\n"
