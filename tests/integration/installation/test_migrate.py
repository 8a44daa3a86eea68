"""`membridge migrate` on a machine of the old tool, with a real S3 and NATS: settings and stored memory come over."""

import json
import shutil
import tomllib
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.commits.layout import legacy_database
from membridge.objectstore.protocol import ObjectStore
from membridge.objectstore.s3.client import S3Options
from membridge.testing.node_process import NodeProcess
from membridge.testing.writer import write
from schemas.identity import canonical_id
from tests.fixtures.databases import titles
from tests.fixtures.lanes import opened_store
from tests.fixtures.machines import PROJECT, SAMPLE, MakeMachine, command
from tests.install.machine import PRECIOUS, populate, tree


@pytest.fixture
async def store(bus: Bus, s3_options: S3Options) -> AsyncGenerator[ObjectStore]:
    """The bucket that the old tool used."""
    async with opened_store("s3", bus, s3_options) as opened:
        yield opened


@pytest.fixture
def old(make_machine: MakeMachine, s3_options: S3Options) -> NodeProcess:
    """A machine with a memory of its own and everything that the old tool leaves."""
    machine = make_machine("old")
    populate(machine.home)
    for name in ("claude-mem.db", "claude-mem.db-wal"):
        machine.database.with_name(name).unlink()
    shutil.copyfile(SAMPLE, machine.database)
    (machine.home / ".config/membridge/config.toml").unlink()
    env = (
        f"export MINIO_ENDPOINT={s3_options.endpoint}\nMINIO_BUCKET='{s3_options.bucket}'\n"
        f'MINIO_ACCESS_KEY={s3_options.access_key}\nMINIO_SECRET_KEY="{s3_options.secret_key}"\n'
        f"CLAUDE_PROJECT_ID={PROJECT}\nPRIMARY_NODE_ID=old\n"
    )
    (machine.home / ".claude-mem-minio/config.env").write_text(env, encoding="utf-8")
    return machine


def kept(home: Path) -> dict[str, str]:
    """Return what must stay, but for the memory, which a pull merges."""
    folders = {name.split("/")[0] for name in PRECIOUS} - {".claude-mem"}
    return {path: body for path, body in tree(home).items() if path.split("/")[0] in folders}


async def test_settings_and_stored_memory_are_imported(old: NodeProcess, store: ObjectStore, tmp_path: Path) -> None:
    stored = tmp_path / "stored.db"
    shutil.copyfile(SAMPLE, stored)
    write(str(stored), 3, "stored")
    write(str(old.database), 2, "learned here")
    await store.upload(legacy_database(canonical_id(PROJECT)), stored, if_absent=False, deadline=Deadline.after(30))
    before, rows = kept(old.home), memory_rows(old.database)
    config = old.home / ".config/membridge/config.toml"

    planned = await command(old, "migrate", "--dry-run")

    assert (planned["remote"], config.exists(), memory_rows(old.database)) == ("not yet", False, rows)
    made = await command(old, "migrate")
    assert made["remote"] == "imported"
    assert {one["kind"] for one in made["found"]} == {"settings", "scripts"}
    assert {one["name"] for one in made["settings"] if one["written"]} == {
        "MINIO_ENDPOINT", "MINIO_BUCKET", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "PRIMARY_NODE_ID",
    }  # fmt: skip
    written = tomllib.loads(config.read_text("utf-8"))
    assert (written["leadership"], config.stat().st_mode & 0o777) == ({"primary_node_id": "old"}, 0o600)
    assert json.loads((old.home / ".local/state/membridge/migration-report.json").read_text("utf-8")) == made
    assert {f"stored learned fact {number}" for number in range(3)} <= titles(old.database)
    assert {f"learned here learned fact {number}" for number in range(2)} <= titles(old.database)
    assert kept(old.home) == before
    # Without the old file the settings are the same.
    shutil.rmtree(old.home / ".claude-mem-minio")
    assert (await command(old, "migrate", "--dry-run"))["settings"] == []
    assert (await command(old, "push"))["outcome"] == "committed"


async def test_settings_of_ones_own_stay_and_a_second_run_changes_nothing(old: NodeProcess, store: ObjectStore) -> None:
    config = old.home / ".config/membridge/config.toml"
    config.write_text("[lane]\nquiet_seconds = 7\n", encoding="utf-8")

    made = await command(old, "migrate")

    assert made["remote"] == "nothing"
    assert [one["written"] for one in made["settings"]] == [False] * 5
    assert config.read_text("utf-8") == "[lane]\nquiet_seconds = 7\n"
    assert (await command(old, "migrate"))["settings"] == made["settings"]


async def test_a_pinned_id_that_is_not_the_names_is_explained(old: NodeProcess, store: ObjectStore) -> None:
    with (old.home / ".claude-mem-minio/config.env").open("a", encoding="utf-8") as file:
        file.write("CLAUDE_CANONICAL_PROJECT_ID=0123456789abcdef\n")

    made = await command(old, "migrate")

    assert made["remote"] == "not yet"
    assert "pin the id 0123456789abcdef" in made["remote_detail"]
    assert "membridge pull" in made["next"]


async def test_without_a_server_the_report_names_the_command_that_is_left(old: NodeProcess) -> None:
    old.nats_url = "nats://127.0.0.1:9"

    made = await command(old, "migrate")

    assert made["remote"] == "not yet"
    assert "nats://127.0.0.1:9" in made["remote_detail"]
    assert made["next"][:1] == ["membridge pull"]
