"""Whatever is wrong: one clear line, exit code 1, and nothing changed."""

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from membridge.claudemem.memory import memory_rows
from membridge.objectstore.s3.client import S3Options
from membridge.testing.node_process import NodeProcess
from membridge.testing.writer import write
from tests.fixtures.machines import SAMPLE, MakeMachine, command


def missing(database: Path) -> None:
    database.unlink()


def not_sqlite(database: Path) -> None:
    database.write_text("these are notes\n" * 100, encoding="utf-8")


def not_claude_mems(database: Path) -> None:
    database.unlink()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE recipes(name TEXT)")


def corrupt(database: Path) -> None:
    with database.open("r+b") as file:
        for page in range(20, 240):
            file.seek(page * 4096)
            file.write(b"\xa5" * 64)


def truncated(database: Path) -> None:
    with database.open("r+b") as file:
        file.truncate(300_000)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (missing, "there is no database"),
        (not_sqlite, "SQLite"),
        (not_claude_mems, "claude-mem"),
        (corrupt, "damaged"),
        (truncated, "damaged"),
    ],
)
async def test_a_bad_database_is_one_line_and_no_commit(
    make_machine: MakeMachine, damage: Callable[[Path], None], said: str
) -> None:
    a = make_machine("a", memory=True)
    damage(a.database)
    kept = a.database.read_bytes() if a.database.exists() else None
    code, output = await a.command("push")
    assert code == 1
    assert said in output
    assert len(one_error(output)) == 1
    assert (a.database.read_bytes() if a.database.exists() else None) == kept
    code, output = await make_machine("b").command("pull")
    assert "no snapshot yet" in output


async def test_a_database_that_stays_locked_is_given_up_at_the_deadline(make_machine: MakeMachine) -> None:
    a, b = make_machine("a", memory=True), make_machine("b", MEMBRIDGE_OPERATION_TIMEOUT_SECONDS="4")
    await command(a, "push")
    await command(b, "pull")
    write(str(a.database), 2, "a")
    await command(a, "push")
    before = memory_rows(b.database)
    with closing(sqlite3.connect(b.database, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        code, output = await b.command("pull")
        holder.execute("ROLLBACK")
    assert code == 1
    assert len(one_error(output)) == 1
    assert memory_rows(b.database) == before
    await command(b, "pull")
    assert memory_rows(b.database) == memory_rows(a.database)


@pytest.mark.parametrize("name", ["with spaces", "quo'te\"s", "ünïcödé-記憶"])
async def test_a_path_of_any_characters_works(make_machine: MakeMachine, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    database = folder / "claude mem.db"
    shutil.copyfile(SAMPLE, database)
    a = make_machine("a", CLAUDE_MEM_DB=str(database))
    b = make_machine("b", CLAUDE_MEM_DB=str(folder / "b's.db"))
    await command(a, "push")
    await command(b, "pull")
    write(str(database), 2, "a")
    await command(a, "push")
    await command(b, "pull")
    assert memory_rows(folder / "b's.db") == memory_rows(database)


async def test_a_database_behind_a_link_is_the_same_database(make_machine: MakeMachine, tmp_path: Path) -> None:
    a = make_machine("a", memory=True)
    await command(a, "push")
    link = tmp_path / "link.db"
    link.symlink_to(a.database)
    linked = make_machine("a", CLAUDE_MEM_DB=str(link))
    write(str(a.database), 2, "a")
    assert (await command(linked, "push"))["outcome"] == "committed"
    assert link.is_symlink()


async def test_a_server_that_is_not_there_and_a_project_that_is_not_known(make_machine: MakeMachine) -> None:
    a = make_machine("a", memory=True, MEMBRIDGE_NATS_URL="nats://127.0.0.1:9")
    code, output = await a.command("push")
    assert (code, "127.0.0.1:9" in output, "membridge up" in output) == (1, True, True)
    code, output = await make_machine("a").command("push", "--project", "unheard-of")
    assert (code, "unheard-of" in output) == (1, True)


async def test_a_wrong_setting_is_one_line(make_machine: MakeMachine) -> None:
    code, output = await make_machine("a", LEADERSHIP_LEASE_SECONDS="soon").command("status")
    assert code == 1
    assert "LEADERSHIP_LEASE_SECONDS" in one_error(output)[0]


async def test_an_s3_that_refuses_is_told_apart_and_its_secret_stays_secret(
    make_machine: MakeMachine, s3_options: S3Options
) -> None:
    def on(options: S3Options) -> NodeProcess:
        return make_machine(
            "a",
            memory=True,
            MINIO_ENDPOINT=options.endpoint,
            MINIO_ACCESS_KEY=options.access_key,
            MINIO_SECRET_KEY=options.secret_key,
            MINIO_BUCKET=options.bucket,
        )

    cases = [
        (replace(s3_options, secret_key="not-the-secret-key"), "refused the access key"),
        (replace(s3_options, bucket="no-such-bucket"), "no-such-bucket does not exist"),
        (replace(s3_options, endpoint="http://127.0.0.1:9"), "is not available"),
    ]
    for options, said in cases:
        code, output = await on(options).command("push")
        assert (code, said in output) == (1, True), output
        assert options.secret_key not in output
    assert (await command(on(s3_options), "push"))["outcome"] == "committed"


async def test_a_full_disk_stops_a_pull_and_leaves_everything_as_it_was(
    make_machine: MakeMachine, tmp_path: Path
) -> None:
    a = make_machine("a", memory=True)
    await command(a, "push")
    with small_disk(tmp_path / "small", "400k") as disk:
        b = make_machine("b", MEMBRIDGE_STATE_DIR=str(disk / "state"))
        code, output = await b.command("pull")
        assert (code, len(one_error(output))) == (1, 1)
        assert "space" in output or "full" in output
        assert not b.database.exists()
    c = make_machine("b")
    await command(c, "pull")
    assert memory_rows(c.database) == memory_rows(a.database)


@contextmanager
def small_disk(folder: Path, size: str) -> Generator[Path]:
    """A file system of a few pages; mounting one is what a test as root can do."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def one_error(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("error:")]
