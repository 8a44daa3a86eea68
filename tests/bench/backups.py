"""`python -m tests.bench.backups`: what backups of two busy weeks weigh, and whether each one can be restored.

A grown database takes in rows of another machine fifty times a day, ten new observations and five that were edited;
the clock is moved on between two merges. Then a
sample of the backups is restored, each from the state after all of them, and compared row by row.
"""

import argparse
import asyncio
import hashlib
import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from membridge.claudemem.sql import Connection
from membridge.merge import proposal
from membridge.merge.former import RawRows
from membridge.snapshot import backups
from membridge.snapshot.backup_retention import BackupPolicy
from membridge.system import clock
from schemas.identity import NodeId, canonical_id
from schemas.proposal import ProposalBundle, ProposedRow
from tests.fixtures.backed_up import Machine, machine
from tests.fixtures.databases import connect, grow
from tests.fixtures.lanes import soon


class Calendar:
    """A clock that is moved on by hand."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """Return the instant."""
        return self.at


def news(number: int, choices: random.Random, former: list[ProposedRow]) -> ProposalBundle:
    """Return what another machine learned: a session, ten observations, a summary, and edits of five `former` rows."""
    memory, at = f"mem-other-{number}", 1_780_000_000_000 + number * 60_000
    stamp = clock.stamp(at / 1_000)

    def text(words: int) -> str:
        return " ".join(f"{choices.getrandbits(28):x}" for _ in range(words))

    session = {
        "content_session_id": f"other-{number}", "memory_session_id": memory, "project": "p", "user_prompt": text(8),
        "platform_source": "claude", "started_at": stamp, "started_at_epoch": at, "status": "completed",
    }  # fmt: skip
    of_session = {"memory_session_id": memory, "project": "p", "created_at": stamp, "created_at_epoch": at}
    rows = [ProposedRow(table="sdk_sessions", row=session, local_id=number + 1)]
    for one in range(10):
        row = of_session | {"type": "discovery", "title": text(6), "narrative": text(60), "facts": text(30)}
        rows.append(ProposedRow(table="observations", row=row, local_id=number * 10 + one + 1))
    rows.append(ProposedRow(table="session_summaries", row=of_session | {"learned": text(60)}, local_id=number + 1))
    for known in choices.sample(former, min(5, len(former))):
        assert known.row is not None
        edited = known.row | {"narrative": text(60), "subtitle": text(6)}
        former[former.index(known)] = made = ProposedRow(
            table=known.table, row=edited, base=known.row, local_id=known.local_id
        )
        rows.append(made)
    former.extend(row for row in rows if row.table == "observations" and row.base is None)
    return ProposalBundle(
        project=canonical_id("backed up"), node=NodeId("other"), device_id="other", base_seq=1, rows=rows
    )


def digest_of(path: Path) -> str:
    """Return the sum of every row of a database, with its rowid and all its columns."""
    opened = connect(path)
    found = hashlib.sha256()
    try:
        for table in sorted(RawRows(Connection(opened)).tables()):
            for row in opened.execute(f'SELECT rowid, * FROM "{table}" ORDER BY rowid'):
                found.update(repr((table, row)).encode())
    finally:
        opened.close()
    return found.hexdigest()


def merged(one: Machine, calendar: Calendar, days: int, per_day: int, sample: set[int]) -> Iterator[tuple[int, str]]:
    """Merge as often as wished; yield the weight of the folder after each, and the sum before those of the sample."""
    choices, former = random.Random(1), list[ProposedRow]()
    for number in range(days * per_day):
        calendar.at += timedelta(days=1 / per_day)
        digest = digest_of(one.database) if number in sample else ""
        save = one.save()
        bundle = news(number, choices, former)
        proposal.merge_proposal(one.database, bundle, journal=one.lane.journal, deadline=soon(), save=save)
        yield sum(path.stat().st_size for path in one.lane.backups.iterdir()), digest


def run(folder: Path, mib: int, days: int, per_day: int, checks: int) -> int:
    """Measure and print."""
    calendar = Calendar()
    clock.now = calendar.now
    with machine(folder / "m", policy=BackupPolicy(max_disk_percent=100)) as one:
        grow(one.database, mib)
        total = days * per_day
        sample = set(random.Random(2).sample(range(total), min(checks, total)))
        began, most, wanted, weight = time.monotonic(), 0, dict[str, str](), 0
        for weight, digest in merged(one, calendar, days, per_day, sample):
            most = max(most, weight)
            if digest:
                wanted[backups.listed(one.lane)[0].id] = digest
        seconds = time.monotonic() - began
        listed = backups.listed(one.lane)
        records = [backup.size_bytes for backup in listed if not backup.full_copy]
        copies = len(listed) - len(records)
        click.echo(
            f"{mib} MiB, {days} days, {per_day} a day: {len(listed)} backups, {copies} full copies, "
            f"{weight / 1e6:.0f} MB now, {most / 1e6:.0f} MB at most, "
            f"{sum(records) / max(1, len(records)):.0f} bytes a record, {seconds / total:.2f} s a merge"
        )
        # The others are older than backups are kept.
        wanted = {name: digest for name, digest in wanted.items() if name in {backup.id for backup in listed}}
        wrong = 0
        for name, digest in wanted.items():
            asyncio.run(one.restore(name))
            wrong += digest_of(one.database) != digest
        click.echo(f"restored {len(wanted)} of them, {wrong} not exactly")
        return 1 if wrong else 0


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=250)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--per-day", type=int, default=50)
    parser.add_argument("--checks", type=int, default=6)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        return run(Path(folder), given.mib, given.days, given.per_day, given.checks)


if __name__ == "__main__":
    sys.exit(main())
