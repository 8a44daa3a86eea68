"""A foreign writer in a process of its own: does what a line of its input says, and answers when it is done.

With the SQLite that Python brings, which is not the one that Membridge reads with, as claude-mem's is not.
"""

import random
import sqlite3
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Characters of a row's text: many small ones, some with overflow pages, few with many.
SIZES = (0, 10, 10, 60, 60, 300, 1_500, 6_000, 30_000)
TABLES = ("sdk_sessions", "observations", "session_summaries", "user_prompts", "tool_uses")


class ForeignWriter:
    """One connection and the dice of one history."""

    def __init__(self, path: str, seed: str) -> None:
        self.random = random.Random(seed)
        self.path = path
        self.open()

    def open(self) -> None:
        """Open the database as claude-mem's worker does."""
        self.database = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        self.run("PRAGMA journal_mode = WAL")
        self.run("PRAGMA synchronous = OFF")
        # A small cache spills into the WAL in the middle of a transaction.
        self.run(f"PRAGMA cache_size = {self.random.choice([-2_000, -2_000, 5])}")
        self.run(f"PRAGMA wal_autocheckpoint = {self.random.choice([0, 20, 100, 1_000])}")
        self.run(f"PRAGMA journal_size_limit = {self.random.choice([-1, 100_000])}")

    def run(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        """Run one statement."""
        return self.database.execute(sql, values).fetchall()

    def text(self) -> str:
        """Return a text of a random size."""
        size = self.random.choice(SIZES)
        return f"{self.random.getrandbits(40):010x}" * (size // 10)

    def any(self, table: str) -> int:
        """Return the rowid of a random row, 0 when there is none."""
        lowest, highest = self.run(f"SELECT coalesce(min(id), 0), coalesce(max(id), 0) FROM {table}")[0]
        assert isinstance(lowest, int)
        assert isinstance(highest, int)
        found = self.run(
            f"SELECT id FROM {table} WHERE id >= ? LIMIT 1", self.random.randint(lowest, max(lowest, highest))
        )
        return int(str(found[0][0])) if found else 0

    def insert(self) -> None:
        """Insert rows, now and then under a rowid of the writer's choice."""
        for _ in range(self.random.choice([1, 1, 2, 5, 20])):
            table = self.random.choice(TABLES)
            columns = self.row(table)
            if self.random.random() < 0.1:
                columns["id"] = self.random.choice([self.random.randint(1, 2_000), self.random.getrandbits(40)])
            names = ", ".join(columns)
            with suppress(sqlite3.IntegrityError):
                self.run(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})", *columns.values())

    def row(self, table: str) -> dict[str, object]:
        """Return what a new row holds."""
        dice, at = self.random, self.random.randrange(1_000)
        content, memory = f"c{dice.randrange(200)}", f"m{dice.randrange(200)}"
        stamps = {"created_at": str(at), "created_at_epoch": at}
        if table == "sdk_sessions":
            return {
                "content_session_id": f"c{dice.getrandbits(20)}",
                "memory_session_id": f"m{dice.getrandbits(20)}",
                "project": "p",
                "user_prompt": self.text(),
                "started_at": "",
                "started_at_epoch": at,
                "status": "active",
            }
        if table == "observations":
            found = {
                "memory_session_id": memory,
                "project": "p",
                "type": "t",
                "title": content,
                "narrative": self.text(),
            }
            return {**found, "content_hash": f"{dice.getrandbits(60):x}", **stamps}
        if table == "session_summaries":
            return {
                "memory_session_id": memory,
                "project": "p",
                "request": self.text(),
                "learned": self.text(),
                **stamps,
            }
        if table == "user_prompts":
            return {
                "session_db_id": self.any("sdk_sessions") or None,
                "content_session_id": content,
                "prompt_number": dice.randrange(50),
                "prompt_text": self.text(),
                **stamps,
            }
        return {
            "tool_use_id": f"t{dice.getrandbits(30)}",
            "content_session_id": content,
            "session_db_id": self.any("sdk_sessions") or None,
            "observation_id": self.any("observations") or None,
            "project": "p",
            "tool_name": "x",
            "tool_response": self.text(),
            **stamps,
        }

    def update(self) -> None:
        """Change rows: to a text of another size, of the same size in place, their key, or only what is local."""
        for _ in range(self.random.choice([1, 1, 3, 10])):
            table = self.random.choice(TABLES)
            column = {
                "sdk_sessions": "user_prompt",
                "observations": "narrative",
                "session_summaries": "learned",
                "user_prompts": "prompt_text",
                "tool_uses": "tool_response",
            }[table]
            number, way = self.any(table), self.random.randrange(6)
            with suppress(sqlite3.IntegrityError):
                if way == 0:
                    self.run(f"UPDATE {table} SET {column} = ? WHERE id = ?", self.text(), number)
                elif way in {1, 2}:
                    # Only the last characters change: of a long row, an overflow page alone.
                    end = f"{self.random.getrandbits(20):05x}"
                    self.run(
                        f"UPDATE {table} SET {column} = substr({column}, 1, length({column}) - 5) || ? "
                        f"WHERE id = ? AND length({column}) > 5",
                        end,
                        number,
                    )
                elif way == 3:
                    self.run(f"UPDATE {table} SET id = ? WHERE id = ?", self.random.getrandbits(12) + 1, number)
                elif way == 4 and table == "sdk_sessions":
                    self.run("UPDATE sdk_sessions SET content_session_id = ? WHERE id = ?", self.text()[:9], number)
                elif table in {"observations", "session_summaries"}:
                    self.run(f"UPDATE {table} SET synced_at = ? WHERE id = ?", self.random.getrandbits(30), number)

    def delete(self) -> None:
        """Delete one row, some in a row, or all."""
        table, way = self.random.choice(TABLES), self.random.random()
        number = self.any(table)
        if way < 0.02:
            self.run(f"DELETE FROM {table}")
        elif way < 0.4:
            self.run(f"DELETE FROM {table} WHERE id BETWEEN ? AND ?", number, number + self.random.randrange(60))
        else:
            self.run(f"DELETE FROM {table} WHERE id = ?", number)

    def other(self) -> None:
        """Write what does not travel."""
        self.run("INSERT OR REPLACE INTO sync_state (k, v) VALUES (?, ?)", f"{self.random.randrange(5)}", self.text())

    def transaction(self) -> None:
        """Do a few things at once and commit, or roll some or all of it back."""
        steps: list[Callable[[], None]] = [self.insert, self.insert, self.update, self.update, self.delete, self.other]
        self.run("BEGIN IMMEDIATE")
        for _ in range(self.random.choice([1, 1, 2, 4])):
            if self.random.random() < 0.1:
                self.run("SAVEPOINT inner")
                self.random.choice(steps)()
                self.run("ROLLBACK TO inner")
            self.random.choice(steps)()
        self.run("ROLLBACK" if self.random.random() < 0.1 else "COMMIT")

    def checkpoint(self) -> None:
        """Fold the WAL in, in one of the ways there are."""
        self.run(f"PRAGMA wal_checkpoint({self.random.choice(['PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'])})")

    def rebuild(self) -> None:
        """Change the file or its schema as a whole."""
        way = self.random.randrange(5)
        if way == 0:
            self.run("VACUUM")
        elif way == 1:
            self.run("PRAGMA incremental_vacuum(20)")
        elif way == 2:
            self.run(f"ALTER TABLE observations ADD COLUMN c{self.random.getrandbits(30)} TEXT")
        elif way == 3:
            self.run("INSERT INTO observations_fts(observations_fts) VALUES ('optimize')")
        else:
            self.run(f"CREATE TABLE IF NOT EXISTS n{self.random.randrange(3)} (k TEXT PRIMARY KEY, v TEXT)")

    def reopen(self) -> None:
        """Close the database and open it again."""
        self.database.close()
        self.open()

    def busy(self) -> None:
        """Write a lot, so that the WAL begins anew more than once."""
        self.run("PRAGMA wal_autocheckpoint = 20")
        for _ in range(self.random.choice([5, 40])):
            self.transaction()


def answer(word: str) -> None:
    """Write a line to whoever reads."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main() -> None:
    """Answer each line of the input, the name of a deed, with a line."""
    path, seed = sys.argv[1:]
    writer = ForeignWriter(path, seed)
    answer("ready")
    for line in sys.stdin:
        with suppress(sqlite3.OperationalError):
            getattr(writer, line.strip())()
        if writer.database.in_transaction:
            writer.run("ROLLBACK")
        answer("done")


if __name__ == "__main__":
    main()
