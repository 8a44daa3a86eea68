"""Machines that share a memory without a network: what the lane does with files, done by hand."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from membridge.aio.deadline import Deadline
from membridge.claudemem import database
from membridge.merge import collect, proposal, snapshot
from membridge.merge.conflicts import Journal
from membridge.merge.report import MergeReport, Source
from schemas.identity import NodeId, ProjectId
from schemas.proposal import ProposalBundle, ProposedRow
from tests.fixtures.databases import Writer, make_database

PROJECT = ProjectId("0123456789abcdef")
_NUMBERS = itertools.count()


def soon() -> Deadline:
    """Return a deadline that no healthy test meets."""
    return Deadline.after(60)


@dataclass(slots=True)
class Machine:
    """One machine: its database, journal and mirror."""

    name: str
    folder: Path
    live: Path
    journal: Journal
    mirror: Path | None = None
    reports: list[MergeReport] = field(default_factory=list[MergeReport])

    @classmethod
    def make(cls, name: str, folder: Path, *, version: str = "13.25.3", empty: bool = True) -> "Machine":
        """Make a machine with a database of its own."""
        home = folder / name
        live = make_database(home / "claude-mem.db", version=version, empty=empty)
        return cls(name, home, live, Journal(home / "journal.db"))

    @property
    def source(self) -> Source:
        """Where rows of this machine's snapshots come from."""
        return Source(NodeId(self.name), f"device-{self.name}")

    def push(self) -> Path:
        """Commit: copy the live database, which becomes this machine's mirror and the head."""
        self.mirror = self.folder / f"mirror-{next(_NUMBERS)}.db"
        database.backup(self.live, self.mirror, deadline=soon())
        return self.mirror

    def pull(self, head: Path, source: Source) -> MergeReport:
        """Merge the head, which becomes this machine's mirror."""
        report = snapshot.merge_snapshot(
            self.live, base=self.mirror, theirs=head, source=source, journal=self.journal, deadline=soon()
        )
        self.mirror = head
        return report

    def collect(self) -> list[ProposedRow]:
        """Return what this machine has to propose."""
        return collect.collect(self.live, self.mirror, journal=self.journal, deadline=soon())

    def bundle(self) -> bytes:
        """Return this machine's proposal as it travels."""
        rows = self.collect()
        return msgspec.json.encode(
            ProposalBundle(
                project=PROJECT, node=NodeId(self.name), device_id=f"device-{self.name}", base_seq=0, rows=rows
            )
        )

    def take_in(self, bundle: bytes) -> MergeReport:
        """Merge a proposal as the primary."""
        decoded = msgspec.json.decode(bundle, type=ProposalBundle)
        return proposal.merge_proposal(self.live, decoded, journal=self.journal, deadline=soon())

    def unsynced(self) -> int:
        """Count what the canonical memory lacks."""
        return len(collect.collect(self.live, self.mirror, journal=self.journal, deadline=soon()))


def sync(primary: Machine, *secondaries: Machine, rounds: int = 2) -> None:
    """Let every machine know everything: each proposes, the primary pushes, each pulls."""
    for _ in range(rounds):
        for machine in secondaries:
            if machine.mirror is None:
                machine.pull(primary.push(), primary.source)
            primary.take_in(machine.bundle())
        head = primary.push()
        for machine in secondaries:
            machine.pull(head, primary.source)


def fill(machine: Machine, batches: int = 3) -> None:
    """Let a machine's agent learn something."""
    with Writer(machine.live, name=machine.name) as writer:
        for _ in range(batches):
            writer.batch()
