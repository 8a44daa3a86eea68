"""Group commit with the tables, statements and fence of a service that is not the coordinator, on each database."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from membridge.aio.deadline import Deadline
from membridge.errors import UnavailableError
from services.database.engine import Engine, open_engine, parse_url
from services.database.group_commit import UnstorableError, in_halves, open_group_commit
from services.database.migrate import Migrations
from services.database.statements import Write, insert_into, update_by_id
from services.database.writer import Fence

STEP = """\
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.create_table("notes", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("text", sa.Text()))
    op.create_table("owners", sa.Column("name", sa.Text(), primary_key=True))
    op.execute("INSERT INTO owners (name) VALUES ('me')")
"""
NOTES = sa.Table("notes", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.Text))
OWNERS = sa.Table("owners", sa.MetaData(), sa.Column("name", sa.Text, primary_key=True))
INSERT, UPDATE = insert_into(NOTES), update_by_id(NOTES, "text")


def insert(number: int) -> Write:
    return Write(INSERT, {"id": number, "text": "new"})


def update(number: int, text: str) -> Write:
    return Write(UPDATE, {"id": number, "text": text})


async def stored(engine: Engine) -> dict[int, str]:
    async with engine.connect() as connection:
        return {row.id: row.text for row in await connection.execute(sa.select(NOTES))}


async def test_a_service_brings_its_tables_statements_and_fence(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "0001_notes.py").write_text(STEP, encoding="utf-8")
    fence = Fence(OWNERS, {"name": "me"}, UnavailableError("another process writes now"))
    url = parse_url(database_url, tmp_path / "unused")
    async with (
        open_engine(url, Migrations("notes", tmp_path), deadline=Deadline.after(30.0)) as engine,
        open_group_commit(engine, fence=fence, statements=(INSERT, UPDATE)) as group_commit,
    ):
        kept, refused = list[int](), list[int]()

        async def commit(numbers: Sequence[int]) -> None:
            await group_commit.commit(map(insert, numbers), stored=lambda: kept.extend(numbers))

        # The statements' sequence decides, and of several updates of one row the last one.
        await group_commit.commit([update(1, "first"), update(1, "last"), insert(1)], stored=lambda: kept.append(1))
        await in_halves([2, 1, 3], commit, lambda number, _: refused.append(number))
        assert (kept, refused) == ([1, 2, 3], [1])
        assert await stored(engine) == {1: "last", 2: "new", 3: "new"}
        with pytest.raises(UnstorableError):
            await commit([1])
        async with engine.begin() as connection:
            await connection.execute(sa.update(OWNERS).values(name="another"))
        # In the transaction itself: what it reads is what the transaction is committed on.
        with pytest.raises(UnavailableError, match="another process"):
            await commit([4])
        assert kept == [1, 2, 3]
        assert await stored(engine) == {1: "last", 2: "new", 3: "new"}
