"""A machine that is revoked is told so and stays down; a primary that is revoked leaves a word and a successor."""

import asyncio
import json
import re
from pathlib import Path

from membridge.testing.node_process import NodeProcess
from schemas.identity import canonical_id
from tests.fixtures.machines import SOON, command
from tests.integration.access.sites import SHARED, eventually, seed_of, signed_in, site

#: The exit code that the systemd unit names in RestartPreventExitStatus.
REVOKED = 77
UNIT = Path(__file__).parents[3] / "deploy" / "systemd" / "user" / "membridge-node.service"
P = canonical_id(SHARED)


async def ended(machine: NodeProcess) -> int:
    """Wait until a daemon has ended; return its exit code."""
    assert machine.process is not None
    async with asyncio.timeout(SOON):
        return await machine.process.wait()


async def leader(machine: NodeProcess) -> str:
    code, output = await machine.command("leader", "--json")
    found = json.loads(output) if code == 0 else {}
    return found["leader"]["primary_node_id"] if found.get("leader") else ""


async def is_synced(machine: NodeProcess) -> bool:
    code, output = await machine.command("status", "--json")
    return code == 0 and json.loads(output)["running"] and json.loads(output)["project"]["mirror_seq"] > 0


async def test_a_revoked_primary_is_told_so_and_stays_down_and_leaves_a_word_and_under_auto_a_successor(
    tmp_path: Path,
) -> None:
    async with site(tmp_path, MEMBRIDGE_LEADERSHIP_GRACE_SECONDS="0.5") as place:
        b, ear = await place.joined("b"), await place.joined("c")
        await b.start()
        await eventually(lambda: is_synced(b), b)
        chosen = await command(place.host, "leader", "select", "b", "--policy", "auto")
        assert (chosen["policy"], chosen["leader"]["primary_node_id"]) == ("auto", "b")
        assert chosen["leader"]["issued_by"].endswith("@a")

        async with signed_in(place, seed_of(ear, P), "c") as listening:
            events = await listening.client.subscribe(f"membridge.{P}.event.leadership_changed.*")
            await listening.client.flush()
            await command(place.host, "nodes", "revoke", "b")
            # Told at once, by name, with what to do; the server itself says that the primary is gone and why.
            assert await ended(b) == REVOKED
            said = b.log.read_text()
            assert re.search(r"error: this machine was revoked by \S+@a \(caller\)", said), said
            assert "`membridge invite`" in said
            told: dict[str, dict[str, str]] = {}
            async with asyncio.timeout(SOON):
                while not {"revoked", "acquired"} <= told.keys():
                    event = json.loads((await events.next_msg(timeout=SOON)).data)
                    told[event["reason"]] = event
        assert told["revoked"]["node"] == "a"
        assert told["revoked"]["issued_by"].endswith("@a (caller)")
        assert await leader(place.host) == "a"
        seen = await command(place.host, "leader")
        assert (seen["policy"], seen["preferred"], seen["leader"]["issued_by"]) == ("auto", "a", "a")
        lines = [json.loads(line) for line in place.host.log.read_text().splitlines() if line.startswith("{")]
        (line,) = [line for line in lines if line["event"] == "primary revoked"]
        assert (line["node"], line["by"]) == ("b", told["revoked"]["issued_by"])
        present = {node["node"] for node in (await command(place.host, "nodes"))["nodes"]}
        assert present == {"a"}

        # Started again, it says why and ends with the code that systemd does not restart it for.
        assert f"RestartPreventExitStatus={REVOKED}" in UNIT.read_text()
        b.log.unlink()
        await b.start()
        assert await ended(b) == REVOKED
        assert "it was revoked" in b.log.read_text()
        code, output = await b.command("status")
        assert (code, "refused the credentials" in output) == (1, True), output
        # The remedy that was printed: a new invitation, with new keys.
        renewed = await place.invite("--node", "b", "--project", SHARED)
        code, output = await b.command("join", renewed, "--once", "--replace")
        assert code == 0, output
