"""Machines with keys of their own share a configuration inside their project's account, and not beyond it."""

from pathlib import Path

from schemas.claude_config import CLAUDE_CONFIG
from schemas.identity import canonical_id
from tests.fixtures.machines import command
from tests.integration.access.sites import OTHER, SHARED, attacker, site

P, Q = canonical_id(SHARED), canonical_id(OTHER)


async def test_an_enrolled_machine_pulls_pushes_and_cannot_write_another_projects_head(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        b = await place.joined("b")
        for machine in (place.host, b):
            (machine.home / ".claude").mkdir(parents=True, exist_ok=True)
        (place.host.home / ".claude/CLAUDE.md").write_text("one\n")

        assert (await command(place.host, "claude-config", "push"))["seq"] == 1
        await command(b, "claude-config", "pull")
        assert (b.home / ".claude/CLAUDE.md").read_text() == "one\n"
        (b.home / ".claude/CLAUDE.md").write_text("two\n")
        assert (await command(b, "claude-config", "push"))["seq"] == 2
        await command(place.host, "claude-config", "pull")
        assert (place.host.home / ".claude/CLAUDE.md").read_text() == "two\n"
        # The other project has a configuration of its own.
        assert (await command(place.host, "claude-config", "diff", "--project", OTHER))["seq"] == 0

        async with attacker(place, b) as evil:
            subject = f"$KV.{CLAUDE_CONFIG.name}"
            assert not await evil.publish(f"{subject}.{Q}")
            assert not await evil.publish(f"{subject}.{P}.more")
            # With its own key alone it could delete all others, if the bucket allowed roll-ups.
            answer = await evil.store(f"{subject}.{P}", b"{}", headers={"Nats-Rollup": "all"})
            assert "error" in answer
        assert (await command(b, "claude-config", "diff"))["seq"] == 2
