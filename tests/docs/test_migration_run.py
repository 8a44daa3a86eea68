"""The way from the old tool and back, with the lines of docs/howto/migrate.md and a bucket that the old tool filled."""

import hashlib
import shutil
from pathlib import Path

from membridge.claudemem.memory import memory_rows
from membridge.objectstore.s3.client import S3Options
from membridge.testing.writer import write
from schemas.identity import canonical_id
from tests.bench.s3 import S3
from tests.fixtures.machines import SAMPLE
from tests.fixtures.ports import free_ports
from tests.fixtures.terminal import UP, Shell, lines_of

PAGE = "docs/howto/migrate.md"
NAME = "notes of the old tool"
STORED = f"projects/{canonical_id(NAME)}/sqlite/claude-mem.db"


def as_the_old_tool_left_it(machine: Shell, seaweed: S3, options: S3Options) -> tuple[Path, bytes]:
    """Give a machine the old tool's settings and a database, and the bucket another one; return what may not change."""
    machine.database.parent.mkdir()
    shutil.copyfile(SAMPLE, machine.database)
    elsewhere = machine.home / "elsewhere.db"
    shutil.copyfile(SAMPLE, elsewhere)
    write(str(elsewhere), 3, "another machine")
    write(str(machine.database), 2, "this machine")
    body = elsewhere.read_bytes()
    client = seaweed.client()
    client.put_object(Bucket=options.bucket, Key=STORED, Body=body)
    line = f"{hashlib.sha256(body).hexdigest()}  claude-mem.db\n"
    client.put_object(Bucket=options.bucket, Key=f"{STORED}.sha256", Body=line.encode())
    settings = machine.home / ".claude-mem-minio" / "config.env"
    settings.parent.mkdir()
    settings.write_text(
        f'CLAUDE_PROJECT_ID="{NAME}"\nMINIO_ENDPOINT={options.endpoint}\nMINIO_BUCKET={options.bucket}\n'
        f"MINIO_ACCESS_KEY={options.access_key}\nMINIO_SECRET_KEY={options.secret_key}\n"
    )
    return settings, settings.read_bytes()


async def test_each_line_of_the_page_and_the_way_back(seaweed: S3, s3_options: S3Options, tmp_path: Path) -> None:
    ports = free_ports(2)
    machine = Shell("first", tmp_path / "first", nats=ports[0], gateway=ports[1])
    settings, before = as_the_old_tool_left_it(machine, seaweed, s3_options)
    here, there = memory_rows(machine.database), memory_rows(machine.home / "elsewhere.db")
    lines = lines_of(PAGE)
    assert len(lines) >= 7
    try:
        for line in lines:
            if line.endswith("membridge up"):
                await machine.interrupt()
                await machine.left_open(line)
                await machine.shows(UP)
            else:
                await machine.typed(line)
        both = memory_rows(machine.database)
        assert both == {table: rows | there[table] for table, rows in here.items()}
        # The last of the page's starts publishes for machines that still have the old tool.
        write(str(machine.database), 1, "after the migration")
        await machine.typed("membridge push")
        client = seaweed.client()
        published = machine.home / "published.db"
        published.write_bytes(client.get_object(Bucket=s3_options.bucket, Key=STORED)["Body"].read())
        recorded = client.get_object(Bucket=s3_options.bucket, Key=f"{STORED}.sha256")["Body"].read().decode()
        assert recorded.split()[0] == hashlib.sha256(published.read_bytes()).hexdigest()
        assert memory_rows(published) == memory_rows(machine.database) != both
    finally:
        await machine.interrupt()
    assert settings.read_bytes() == before
