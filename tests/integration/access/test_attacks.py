"""What a node tries with its own real key against others, and that the honest form of it works.

One server with two projects. Node b is in the first project beside the host a, node c in the second one. What leaves
no trace is tried on one site; what stores for another project, or counts jobs, has a site of its own.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from schemas.identity import canonical_id
from tests.fixtures import complaints
from tests.fixtures.machines import command
from tests.integration.access.sites import OTHER, SHARED, Attacker, Site, attacker, eventually, site

P, Q = canonical_id(SHARED), canonical_id(OTHER)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Site]:
    """A site of all tests that do not disturb each other; b joined it."""
    root = tmp_path_factory.mktemp("attacks")
    async with site(root) as made:
        await made.joined("b")
        yield made
    complaints.check_logs(root)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def b(shared: Site) -> AsyncGenerator[Attacker]:
    async with attacker(shared, shared.machine("b")) as made:
        yield made


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Site]:
    async with site(tmp_path) as made:
        yield made


@pytest.fixture
async def own_b(place: Site) -> AsyncGenerator[Attacker]:
    async with attacker(place, await place.joined("b")) as made:
        yield made


async def test_a_node_speaks_for_itself_only(b: Attacker) -> None:
    assert await b.publish(f"membridge.{P}.event.session_started.b")
    assert not await b.publish(f"membridge.{P}.event.leadership_changed.a")
    assert await b.publish("$KV.nodes.b")
    assert not await b.publish("$KV.nodes.a")
    assert await b.publish(f"membridge.{P}.job.b.x")
    assert not await b.publish(f"membridge.{P}.job.a.x")
    assert await b.publish(f"membridge.{P}.progress.b")
    assert not await b.publish(f"membridge.{P}.progress.a")
    assert await b.publish(f"membridge.{P}.proposal.b", b"no proposal")
    assert not await b.publish(f"membridge.{P}.proposal.a")


async def test_a_node_hears_no_request_to_another(b: Attacker) -> None:
    assert await b.hears(f"membridge.{P}.node.b.status")
    for subject in (f"membridge.{P}.node.a.status", f"membridge.{P}.node.*.push", ">", f"membridge.{P}.>", "_INBOX.>"):
        assert not await b.hears(subject), subject
    assert await b.hears("_INBOX.b.>")
    assert not await b.hears("_INBOX.a.>")
    assert not await b.hears("$JS.API.>")
    assert not await b.hears("$KV.nodes.>")


async def test_a_node_gives_no_orders_to_another(b: Attacker) -> None:
    assert not await b.publish(f"membridge.{P}.node.a.push")
    assert not await b.publish("membridge.daemon.node.a.add_project")
    # That a machine is revoked is said by the server alone; a node hears what is said of itself.
    for node in ("a", "b"):
        assert not await b.publish(f"membridge.daemon.node.{node}.revoked"), node
    assert await b.hears("membridge.daemon.node.b.revoked")
    assert not await b.hears("membridge.daemon.node.a.revoked")
    assert await b.publish(f"membridge.{P}.primary.status")


async def test_a_node_makes_changes_and_empties_no_stream_or_consumer(b: Attacker) -> None:
    assert await b.publish("$JS.API.STREAM.INFO.KV_heads")
    for verb in (
        "STREAM.CREATE.MINE",
        "STREAM.UPDATE.KV_heads",
        "STREAM.DELETE.KV_heads",
        "STREAM.PURGE.KV_heads",
        "STREAM.PURGE.OBJ_membridge",
        "STREAM.MSG.DELETE.KV_heads",
        "STREAM.MSG.GET.KV_heads",
        "STREAM.SNAPSHOT.KV_heads",
        "CONSUMER.CREATE.EVENTS",
        f"CONSUMER.CREATE.EVENTS.mine.membridge.{P}.event.>",
        f"CONSUMER.CREATE.PROPOSALS.proposals-{P}.membridge.{P}.proposal.*",
        "CONSUMER.DURABLE.CREATE.EVENTS.mine",
        f"CONSUMER.DELETE.PROPOSALS.proposals-{P}",
        "CONSUMER.MSG.NEXT.PROPOSALS.other",
    ):
        assert not await b.publish(f"$JS.API.{verb}"), verb


async def test_a_roll_up_wipes_nothing(b: Attacker) -> None:
    before = await b.last("nodes", "a")
    assert before
    for subject in ("$KV.nodes.b", "$O.membridge.M.eA=="):
        answer = await b.store(subject, b"{}", {"Nats-Rollup": "all"})
        assert "error" in answer, answer
    assert await b.last("nodes", "a") != b""
    assert await b.last("heads", P)


async def test_a_push_consumer_reaches_no_foreign_subject(b: Attacker) -> None:
    config = {"deliver_subject": f"membridge.{P}.node.a.push", "filter_subject": f"membridge.{P}.job.b.>"}
    body = json.dumps({"stream_name": "JOBS", "config": config}).encode()
    assert not await b.publish("$JS.API.CONSUMER.CREATE.JOBS", body)
    assert not await b.publish(f"$JS.API.CONSUMER.CREATE.JOBS.x.membridge.{P}.job.b.>", body)


async def test_an_answer_that_is_sent_elsewhere_moves_no_node(place: Site, own_b: Attacker) -> None:

    async def at_rest() -> bool:
        return all(job["state"] != "running" for job in (await command(place.host, "jobs"))["jobs"])

    await eventually(at_rest, place.host)
    before = (await command(place.host, "jobs"))["jobs"]
    # The answers of JetStream, of a stored message of b's choice, and of another service, sent to a's endpoint.
    await own_b.store("$KV.nodes.b", b'{"force": true}')
    target = f"membridge.{P}.node.a.push"
    assert await own_b.publish("$JS.API.DIRECT.GET.KV_nodes.$KV.nodes.b", b"", reply=target)
    assert await own_b.publish("$KV.nodes.b", b"{}", reply=target)
    assert await own_b.publish(f"membridge.{P}.primary.history", b"{}", reply=target)
    # An honest request afterwards is answered, so the others were looked at by then.
    answer = await own_b.client.request(f"membridge.{P}.primary.status", b"{}", timeout=5)
    assert json.loads(answer.data)["node"] == "a"
    assert (await command(place.host, "jobs"))["jobs"] == before


async def test_nothing_of_another_project_is_read_written_or_forged(place: Site, own_b: Attacker) -> None:
    async with attacker(place, await place.joined("c", OTHER), OTHER) as c:
        before = {bucket: await c.last(bucket, Q) for bucket in ("heads", "leadership", "epochs", "settings")}
        assert all(before.values())
        for bucket, value in before.items():
            assert not await own_b.publish(f"$KV.{bucket}.{Q}")
            # Stored where b may, then copied by the server's own answer: that stays in b's account.
            await own_b.store(f"$KV.{bucket}.{P}", value)
            await own_b.publish(f"$JS.API.DIRECT.GET.KV_{bucket}.$KV.{bucket}.{P}", b"", reply=f"$KV.{bucket}.{Q}")
            await own_b.publish(f"$KV.{bucket}.{P}", b"{}", reply=f"$KV.{bucket}.{Q}")
            await own_b.client.flush()
            assert await c.last(bucket, Q) == value
            assert await c.publish(f"$KV.{bucket}.{Q}", value)
        for subject in (f"membridge.{Q}.event.session_started.b", f"membridge.{Q}.primary.status"):
            assert not await own_b.publish(subject)
        assert not await own_b.hears(f"membridge.{Q}.event.*.*")
        # Each account has a store of its own: b asks and is told what its own holds.
        listing = await own_b.client.request(
            "$JS.API.STREAM.INFO.OBJ_membridge", b'{"subjects_filter": ">"}', timeout=5
        )
        of_b = set(json.loads(listing.data)["state"].get("subjects", {}))
        listing = await c.client.request("$JS.API.STREAM.INFO.OBJ_membridge", b'{"subjects_filter": ">"}', timeout=5)
        of_c = set(json.loads(listing.data)["state"].get("subjects", {}))
        assert of_b
        assert of_c
        assert not of_b & of_c


async def test_message_ids_that_are_guessed_drop_nobodys_message(place: Site, own_b: Attacker) -> None:
    # De-duplication is stream-wide, so what a node publishes carries an id that nobody can know before.
    taken = [f"{number}" for number in range(50)] + [P, f"{P}.1", "snapshot_committed", secrets.token_hex(16)]
    for name in taken:
        await own_b.store(f"membridge.{P}.event.session_started.b", b"{}", {"Nats-Msg-Id": name})
    await place.host.write(1, "after the guesses")
    pushed = await command(place.host, "push")
    jobs = (await command(place.host, "jobs"))["jobs"]
    assert pushed["outcome"] in {"committed", "unchanged"}
    (job,) = (job for job in jobs if job["id"] == pushed["job_id"])
    assert job["state"] == "done"


async def test_the_audit_and_the_desk_are_out_of_reach(shared: Site, b: Attacker) -> None:
    before = (await command(shared.host, "nodes", "log"))["records"]
    for subject in (
        "membridge.access.invite",
        "membridge.access.revoke",
        "membridge.access.members",
        "membridge.access.audit_log",
        "membridge.access.enrol",
    ):
        assert not await b.publish(subject, b'{"node": "a"}')
        assert not await b.hears(subject)
    log = (await command(shared.host, "nodes", "log"))["records"]
    assert log == before
    assert [item["action"] for item in log if item["node"] == "b"] == ["enrolled", "invited"]


async def test_a_name_gives_no_right(shared: Site) -> None:
    # Joining under a name that belongs to the server's own users opens nothing of theirs.
    for name in ("desk", "door", f"operator-{P}"):
        async with attacker(shared, await shared.joined(name)) as node:
            assert not await node.hears("_INBOX.>")
            assert not await node.publish("membridge.access.invite")
            assert not await node.publish("$JS.API.STREAM.PURGE.KV_heads")
