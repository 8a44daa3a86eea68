"""Which rows of a node the canonical memory lacks, and what they wait for."""

from collections.abc import Iterable

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem.tables import CARRIED_COLUMNS
from membridge.merge.compare import first_words
from membridge.node.project import Project
from membridge.snapshot import standing
from schemas.commits import RowChange, RowDiff, TableDiff
from schemas.leadership import Role
from schemas.proposal import ProposedRow, UnsyncedReply, UnsyncedRequest, Waiting

#: Seconds after a change for which rows count as just written.
JUST_NOW = 10.0


async def unsynced(
    project: Project, request: UnsyncedRequest, *, by_itself: bool, last_error: str | None, deadline: Deadline
) -> UnsyncedReply:
    """Compare the live database with the newest snapshot here. Errors: the database's, DeadlineExceededError.

    `by_itself` says whether the node pushes by itself, `last_error` why that failed last.
    """
    found: list[ProposedRow] = []
    if await threads.run(project.lane.database.exists):
        found = await threads.run(standing.proposable, project.lane, deadline=deadline)
    if not found:
        return UnsyncedReply()
    waiting, reason, remedy = _why(project, by_itself=by_itself, last_error=last_error)
    return UnsyncedReply(
        total=len(found),
        tables=_counted(found),
        rows=[_named(row) for row in found[: request.limit]],
        listed_all=len(found) <= request.limit,
        waiting=waiting,
        reason=reason,
        remedy=remedy,
    )


def _why(project: Project, *, by_itself: bool, last_error: str | None) -> tuple[Waiting, str, str]:
    """Return what rows wait for, in a word and in a sentence, and what to do."""
    view = project.roles.view()
    if project.busy:
        return Waiting.JOB, "a push or a pull is running", ""
    if last_error is not None:
        return Waiting.RETRY, f"the last push failed, and is tried again: {last_error}", "run `membridge doctor` there"
    if view.role is not Role.PRIMARY and view.leader is None:
        return (
            Waiting.LEADER,
            "no machine is primary, so no snapshot is made",
            "choose a primary: `membridge leader select NODE`",
        )
    if not by_itself:
        return Waiting.PUSH, "this machine does not push by itself", "push: `membridge push` there"
    if view.role is Role.PRIMARY or project.figures.quiet_for() < JUST_NOW:
        return Waiting.QUIET, "written a moment ago, sent once the database is quiet", ""
    return Waiting.PRIMARY, f"offered to {view.leader}, which has not committed them yet", ""


def _counted(rows: Iterable[ProposedRow]) -> list[TableDiff]:
    counts: dict[str, dict[RowChange, int]] = {}
    for row in rows:
        of_table = counts.setdefault(row.table, {})
        of_table[_change(row)] = of_table.get(_change(row), 0) + 1
    return [
        TableDiff(
            table=table,
            came=found.get(RowChange.CAME, 0),
            went=found.get(RowChange.WENT, 0),
            changed=found.get(RowChange.CHANGED, 0),
        )
        for table, found in sorted(counts.items())
    ]


def _named(row: ProposedRow) -> RowDiff:
    values = row.row or row.base or {}
    columns = [
        name
        for name, value in values.items()
        if row.base and row.row and name not in CARRIED_COLUMNS and row.base.get(name) != value
    ]
    return RowDiff(table=row.table, change=_change(row), title=first_words(row.table, values, values), columns=columns)


def _change(row: ProposedRow) -> RowChange:
    if row.row is None:
        return RowChange.WENT
    return RowChange.CAME if row.base is None else RowChange.CHANGED
