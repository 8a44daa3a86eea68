"""Group commit with the tables, statements and fence of a service that is not the coordinator, on each database."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from membridge.aio.deadline import Deadline
from membridge.errors import UnavailableError
from services.database.engine import Engine, open_engine, parse_url
from services.database.group_commit import GroupCommit, UnstorableError, durable
from services.database.migrate import Migrations
from services.database.statements import Statement, Write, update_by_id

STEP = """\
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.create_table("notes", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("text", sa.Text()))
"""
NOTES = sa.Table("notes", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.Text))
INSERT, UPDATE = Statement("insert", sa.insert(NOTES)), Statement("update", update_by_id(NOTES, "text"), key="b_id")


def insert(number: int) -> Write:
    return Write(INSERT, {"id": number, "text": "new"})


def update(number: int, text: str) -> Write:
    return Write(UPDATE, {"b_id": number, "b_text": text})


async def stored(engine: Engine) -> dict[int, str]:
    async with engine.connect() as connection:
        return {row.id: row.text for row in await connection.execute(sa.select(NOTES))}


async def test_a_service_brings_its_tables_statements_and_fence(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "0001_notes.py").write_text(STEP, encoding="utf-8")
    mine = True

    async def fence(connection: AsyncConnection) -> None:
        # In the transaction itself: what it reads is what the transaction is committed on.
        assert connection.in_transaction()
        if not mine:
            raise UnavailableError("another process writes now")

    async def write(engine: Engine, group_commit: GroupCommit) -> None:
        nonlocal mine
        async with asyncio.TaskGroup() as group, asyncio.timeout(20.0):
            group.create_task(group_commit.run(lambda: None))
            # The statements' sequence decides, and of several updates of one row the last one.
            await durable(group_commit.submit([update(1, "first"), update(1, "last"), insert(1)]))
            good, bad, also_good = (group_commit.submit([insert(number)], key=f"{number}") for number in (2, 1, 3))
            await durable(good)
            with pytest.raises(UnstorableError):
                await durable(bad)
            await durable(also_good)
            assert await stored(engine) == {1: "last", 2: "new", 3: "new"}
            mine = False
            with pytest.raises(UnavailableError, match="another process"):
                await durable(group_commit.submit([insert(4)]))

    url = parse_url(database_url, tmp_path / "unused")
    async with open_engine(url, Migrations("notes", tmp_path), deadline=Deadline.after(30.0)) as engine:
        group_commit = GroupCommit(engine, fence=fence, statements=(INSERT, UPDATE))
        with pytest.raises(ExceptionGroup) as ended:
            await write(engine, group_commit)
        assert [type(error) for error in ended.value.exceptions] == [UnavailableError]
        with pytest.raises(UnavailableError, match="another process"):
            group_commit.submit([insert(5)])
        assert await stored(engine) == {1: "last", 2: "new", 3: "new"}
