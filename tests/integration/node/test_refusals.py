"""What a role forbids: the old tool's exit codes, with the reason and the remedy. No daemon runs here."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from membridge.claudemem.memory import memory_rows
from membridge.testing.writer import write
from tests.fixtures.machines import SAMPLE, MakeMachine, command


async def test_a_secondary_proposes_and_commits_only_when_told_to(make_machine: MakeMachine) -> None:
    a, b = make_machine("a", memory=True), make_machine("b")
    assert (await command(a, "push"))["outcome"] == "committed"
    assert (await command(b, "pull"))["outcome"] == "installed"
    write(str(b.database), 3, "b")
    for name in (("push", "--snapshot"), ("push_sqlite",)):
        code, output = await b.command(*name)
        assert code == 3
        assert "this node is not primary" in output
        assert "ALLOW_SECONDARY_PUSH=1" in output
    proposed = await command(b, "push")
    assert (proposed["outcome"], proposed["rows"]) == ("proposed", 4)
    assert (await command(b, "push"))["outcome"] == "unchanged"
    taken = await command(a, "pull")
    assert (taken["outcome"], taken["proposals"]) == ("took_proposals", 1)
    assert (await command(b, "pull"))["unsynced"] == 0
    assert memory_rows(a.database) == memory_rows(b.database)

    write(str(b.database), 1, "again")
    allowed = make_machine("b", ALLOW_SECONDARY_PUSH="1")
    assert (await command(allowed, "push", "--snapshot"))["outcome"] == "committed"


async def test_a_primary_is_not_replaced_while_it_knows_more(make_machine: MakeMachine) -> None:
    a = make_machine("a", memory=True)
    await command(a, "push")
    assert (await command(a, "pull", "--replace"))["outcome"] in {"replaced", "unchanged"}
    write(str(a.database), 3, "a")
    before = memory_rows(a.database)
    for name in (("pull", "--replace"), ("pull_sqlite",)):
        code, output = await a.command(*name)
        assert code == 2
        assert "primary" in output
        assert "ALLOW_PRIMARY_PULL_OVERRIDE=1" in output
    assert memory_rows(a.database) == before
    overridden = make_machine("a", ALLOW_PRIMARY_PULL_OVERRIDE="1")
    replaced = await command(overridden, "pull", "--replace")
    assert (replaced["outcome"], replaced["deleted"] > 0) == ("replaced", True)
    assert replaced["backup"]


async def test_without_roles_every_node_commits_and_nothing_is_lost(make_machine: MakeMachine) -> None:
    a, b = (make_machine(name, memory=True, LEADERSHIP_ENABLED="0") for name in ("a", "b"))
    write(str(a.database), 3, "a")
    write(str(b.database), 3, "b")
    assert (await command(a, "push"))["outcome"] == "committed"
    assert (await command(b, "push"))["outcome"] == "committed"
    await command(a, "pull")
    assert memory_rows(a.database) == memory_rows(b.database)


async def test_a_dry_run_changes_nothing(make_machine: MakeMachine) -> None:
    a = make_machine("a", memory=True, MEMBRIDGE_AGENT_DRYRUN="1")
    assert (await command(a, "push"))["outcome"] == "dry_run"
    code, output = await make_machine("b").command("pull")
    assert code == 1
    assert "no snapshot yet" in output


async def test_a_shrunken_memory_is_pushed_only_on_purpose(make_machine: MakeMachine) -> None:
    a = make_machine("a", memory=True)
    await command(a, "push")
    a.database.unlink()
    write_fresh(a.database)
    code, output = await a.command("push")
    assert code == 1
    assert "would be lost" in output
    assert "--allow-shrink" in output


def write_fresh(database: Path) -> None:
    """A database of claude-mem's with almost nothing in it."""
    shutil.copyfile(SAMPLE, database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM observations")
        connection.execute("DELETE FROM user_prompts")
