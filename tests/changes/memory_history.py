"""Random histories of a memory of rows: the delta of the open keys makes it what the live database is."""

from contextlib import closing
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem.memory import memory_rows
from membridge.merge.fill import fill
from membridge.merge.memory_file import MemoryFile
from membridge.merge.row_delta import delta_of
from tests.changes.history import MissedRowError
from tests.changes.index_history import IndexHistory, soon


class MemoryHistory(IndexHistory):
    """A node that keeps its mirror as rows beside the file."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        self._memory = self._filled()

    def close(self) -> None:
        """End the writer and close what is open."""
        super().close()
        self._memory.close()

    def _pull(self) -> None:
        super()._pull()
        self._refill()

    def _push(self) -> None:
        if self.is_writing:
            return
        self._stand()
        with self._index.looking(self._mirror, deadline=soon()) as (standing, live):
            self._memory.begin()
            self._memory.take_in(delta_of(self._memory, live, standing.open))
            self._memory.commit(b"delta")
        self.ways["delta"] += 1
        found: dict[str, set[bytes]] = {}
        for row in self._memory.sent():
            found.setdefault(row.table, set()).add(row.canonical)
        if found != {name: rows for name, rows in memory_rows(self.path).items() if rows}:
            raise MissedRowError(f"seed {self.seed}: the delta does not lead to the live database")
        self._memory.check()
        super()._push()

    def _refill(self) -> None:
        self._memory.close()
        self._memory = self._filled()

    def _filled(self) -> MemoryFile:
        path = self.path.with_name("state.memory")
        path.unlink(missing_ok=True)
        with closing(MemoryFile(path, deadline=soon(), building=True)) as memory:
            fill(memory, self._mirror.path, is_live=False, deadline=soon())
            memory.note_counted(memory.counted())
            memory.settle()
        # Open for as long as the history goes on, on a busy machine too.
        return MemoryFile(path, deadline=Deadline.after(3_600.0))
