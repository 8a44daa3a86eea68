"""Random histories on three machines with real databases: they end with the same memory, and nothing is lost."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from membridge.claudemem.memory import memory_rows, memory_sum
from membridge.merge.report import MergeReport
from tests.fixtures.databases import Writer, connect, execute, rows_of
from tests.integration.merge.machines import Machine, sync

#: One step: (what, on which machine, which memory).
STEP = st.tuples(
    st.sampled_from(["add", "add", "add", "edit", "rename", "delete", "push", "pull", "propose", "again"]),
    st.integers(0, 2),
    st.integers(0, 7),
)


class World:
    """A primary and two secondaries, and what was ever written or deleted anywhere."""

    def __init__(self, folder: Path) -> None:
        self.machines = [Machine.make(name, folder) for name in ("node-a", "node-b", "node-c")]
        self.primary = self.machines[0]
        self.head = self.primary.push()
        self.sent: list[bytes] = []
        self.written: list[str] = []
        self.deleted: set[str] = set()
        self.counter = 0
        for machine in self.machines[1:]:
            machine.pull(self.head, self.primary.source)

    def step(self, what: str, which: int, number: int) -> None:
        """Do one step."""
        machine = self.machines[which]
        self.counter += 1
        getattr(self, f"_{what}")(machine, number)

    def _add(self, machine: Machine, number: int) -> None:
        narrative = f"memory {self.counter}"
        with Writer(machine.live, name=f"{machine.name}{self.counter}") as writer:
            shared = f"manual-{number % 3}"
            known = rows_of(machine.live, "SELECT 1 FROM sdk_sessions WHERE content_session_id = ?", (shared,))
            memory = f"mem-{shared}" if known else writer.session(content_id=shared)
            writer.observation(memory, title=f"title {self.counter}", at=1_700_000_000_000 + number // 4)
        execute(
            machine.live, "UPDATE observations SET narrative = ? WHERE title = ?", (narrative, f"title {self.counter}")
        )
        self.written.append(narrative)

    def _edit(self, machine: Machine, number: int) -> None:
        self._set(machine, number, "UPDATE observations SET title = ? WHERE narrative = ?")

    def _rename(self, machine: Machine, number: int) -> None:
        self._set(machine, number, "UPDATE observations SET merged_into_project = ? WHERE narrative = ?")

    def _set(self, machine: Machine, number: int, sql: str) -> None:
        if self.written:
            execute(machine.live, sql, (f"edit {self.counter}", self.written[number % len(self.written)]))

    def _delete(self, machine: Machine, number: int) -> None:
        if self.written:
            narrative = self.written[number % len(self.written)]
            if rows_of(machine.live, "SELECT 1 FROM observations WHERE narrative = ?", (narrative,)):
                execute(machine.live, "DELETE FROM observations WHERE narrative = ?", (narrative,))
                self.deleted.add(narrative)

    def _push(self, _machine: Machine, _number: int) -> None:
        self.head = self.primary.push()

    def _pull(self, machine: Machine, _number: int) -> None:
        if machine is not self.primary:
            machine.pull(self.head, self.primary.source)

    def _propose(self, machine: Machine, _number: int) -> None:
        if machine is not self.primary:
            self.sent.append(machine.bundle())
            self.primary.take_in(self.sent[-1])

    def _again(self, _machine: Machine, number: int) -> None:
        """Deliver an old proposal once more, as a work queue may."""
        if self.sent:
            self.primary.take_in(self.sent[number % len(self.sent)])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEP, min_size=3, max_size=14))
def test_all_machines_end_with_one_memory_and_nothing_is_lost(steps: list[tuple[str, int, int]]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        world = World(folder)
        for what, which, number in steps:
            world.step(what, which, number)

        sync(world.primary, *world.machines[1:], rounds=3)

        digests = {machine.name: memory_sum(machine.live) for machine in world.machines}
        assert len(set(digests.values())) == 1, [memory_rows(machine.live) for machine in world.machines]
        for machine in world.machines:
            left = {row[0] for row in rows_of(machine.live, "SELECT narrative FROM observations")}
            assert left >= set(world.written) - world.deleted
            assert machine.unsynced() == 0
            assert not rows_of(machine.live, "SELECT 1 FROM observations GROUP BY narrative HAVING count(*) > 1")
            assert not machine.journal.quarantined()
            _check_full_text(machine.live)
        for machine in world.machines[1:]:
            again = machine.pull(world.primary.push(), world.primary.source)
            assert again == MergeReport(), "a merge of what is known changes nothing"
    finally:
        for machine in world.machines:
            machine.journal.close()
        shutil.rmtree(folder)


def _check_full_text(path: Path) -> None:
    connection = connect(path)
    connection.execute("INSERT INTO observations_fts (observations_fts) VALUES ('integrity-check')")
    connection.close()
