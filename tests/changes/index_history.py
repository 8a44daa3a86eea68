"""Random histories of a row index: what it finds is what a comparison of everything finds, at every look."""

from contextlib import closing
from pathlib import Path

import apsw
import msgspec

from membridge.aio.deadline import Deadline
from membridge.claudemem import database
from membridge.merge import collect, snapshot
from membridge.merge.audit import AUDIT_FILE, Audit
from membridge.merge.conflicts import Journal
from membridge.merge.index_file import IndexFileError
from membridge.merge.report import Source
from membridge.merge.row_index import INDEX_FILE, Keys, MirrorFile, RowIndex
from membridge.system import files
from schemas.identity import NodeId
from schemas.proposal import ProposedRow
from tests.changes.history import History, MissedRowError

#: What another node did to a snapshot.
THEIRS = (
    "UPDATE observations SET narrative = 'theirs' WHERE id % 7 = 0",
    "UPDATE session_summaries SET learned = 'theirs' WHERE id % 5 = 0",
    "UPDATE sdk_sessions SET custom_title = 'theirs' WHERE id % 3 = 0",
    "DELETE FROM user_prompts WHERE id % 11 = 0",
)


def soon() -> Deadline:
    """Return a deadline that nothing here needs."""
    return Deadline.after(60.0)


class IndexHistory(History):
    """A node: it looks, pushes, pulls what another node has, loses its index, and looks again."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        self._index = RowIndex(folder / INDEX_FILE, self.path, lasting=self.dice.random() < 0.8)
        self._journal = Journal(folder / "journal.db")
        self._auditor = Audit(folder / AUDIT_FILE, self._index, seconds=0.002)
        self._mirrors = 0
        self._mirror = self._copied()

    def close(self) -> None:
        """End the writer and close what is open."""
        super().close()
        self._index.close()
        self._journal.close()

    def restart(self) -> None:
        """Close the index, and now and then lose or damage its file."""
        self._index.close()
        self._auditor = Audit(self.folder / AUDIT_FILE, self._index, seconds=0.002)
        way, file = self.dice.random(), self.folder / INDEX_FILE
        if way < 0.3:
            file.unlink(missing_ok=True)
        elif way < 0.5 and file.exists():
            file.write_bytes(b"not a database" * 100)

    def check(self) -> None:
        """Look, and compare with everything; then push, pull or audit."""
        self._stand()
        way = self.dice.random()
        if way < 0.15:
            self._push()
        elif way < 0.25:
            self._pull()
        elif way < 0.5:
            self._audit()

    def _stand(self) -> int:
        for _ in range(2):
            try:
                standing = self._index.catch_up(self._mirror, deadline=soon())
                break
            except IndexFileError:
                continue
        else:
            raise MissedRowError("a damaged index is not made anew")
        found = collect.collect_open(
            self.path, self._mirror.path, standing.open, journal=self._journal, deadline=soon()
        )
        if not self.is_writing:
            everything = collect.collect(self.path, self._mirror.path, journal=self._journal, deadline=soon())
            rows = database.inspect(self.path, deadline=soon()).rows
            if _sorted(found.rows) != _sorted(everything) or {k: v for k, v in standing.rows.items() if v} != {
                k: v for k, v in rows.items() if v
            }:
                raise MissedRowError(f"seed {self.seed}: {len(everything) - len(found.rows)} rows of {len(everything)}")
        self._index.settled(found.equal, turn=standing.turn)
        return standing.turn

    def _push(self) -> None:
        turn = self._stand()
        self._mirror = self._copied()
        self._index.moved(self._mirror.sha256, {}, turn=turn)

    def _pull(self) -> None:
        """Merge a state that another node made of the mirror."""
        self._mirrors += 1
        theirs = self.folder / f"theirs-{self._mirrors}.db"
        files.copy(self._mirror.path, theirs)
        with closing(apsw.Connection(str(theirs))) as connection:
            for statement in THEIRS:
                connection.execute(statement)
        other = MirrorFile(files.sha256_of(theirs), theirs)
        found: list[Keys] = []
        turn = self._stand()
        snapshot.merge_snapshot(
            self.path,
            base=self._mirror.path,
            theirs=theirs,
            source=Source(NodeId("other")),
            journal=self._journal,
            deadline=soon(),
            compared=found.append,
        )
        self._mirror = other
        self._index.moved(other.sha256, found[0], turn=turn)
        self._stand()

    def _audit(self) -> None:
        """Compare some slices: the rounds between them are what a writer, pushes and pulls do meanwhile."""
        for _ in range(self.dice.choice([1, 1, 3, 1_000])):
            try:
                found = self._auditor.go_on(self._mirror, deadline=soon())
            except IndexFileError:
                return
            if found.missed:
                raise MissedRowError(f"seed {self.seed}: the audit found {found.missed} keys")
            self.ways["audits"] += found.is_last
            if found.is_last:
                return

    def _copied(self) -> MirrorFile:
        self._mirrors += 1
        target = self.folder / f"mirror-{self._mirrors}.db"
        database.backup(self.path, target, deadline=soon())
        return MirrorFile(files.sha256_of(target), target)


def _sorted(rows: list[ProposedRow]) -> list[bytes]:
    return sorted(msgspec.json.encode(row) for row in rows)
