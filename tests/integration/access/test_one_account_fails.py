"""A node with a key for each project: one account that refuses it does not keep the others from being served."""

import json
import shutil
from pathlib import Path

from membridge.access.nkeys import provide_key
from membridge.testing.node_process import NodeProcess
from schemas.identity import canonical_id
from tests.integration.access.sites import OTHER, SHARED, eventually, seed_of, site


async def synced(machine: NodeProcess, project: str) -> bool:
    """Whether a machine's daemon has the newest snapshot of a project."""
    code, output = await machine.command("status", "--json", "--project", project)
    if code:
        return False
    seen = json.loads(output)
    return bool(seen["running"] and seen["project"]["mirror_seq"] and not seen["project"]["lag"])


async def test_one_account_that_cannot_be_opened_is_retried_and_the_others_serve(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        line = await place.invite("--node", "b")
        b = place.machine("b", SHARED)
        code, output = await b.command("join", line, "--once")
        assert code == 0, output
        seed = seed_of(b, canonical_id(OTHER))
        kept = seed.with_suffix(".kept")
        shutil.move(seed, kept)
        provide_key(seed)
        await b.start()
        try:
            await eventually(lambda: synced(b, SHARED), b)
            reported = [json.loads(one) for one in b.log.read_text().splitlines() if "project not served" in one]
            assert [(one["project"], one["level"]) for one in reported] == [(OTHER, "error")]
            assert not await synced(b, OTHER)
            kept.replace(seed)
            await eventually(lambda: synced(b, OTHER), b)
        finally:
            await b.stop()
