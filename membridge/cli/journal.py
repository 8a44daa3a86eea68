"""`membridge backups` and `conflicts`: what was kept, and where."""

from membridge.cli import units
from membridge.cli.command import Invocation, command
from schemas import subjects
from schemas.node import Empty
from schemas.proposal import Conflict, ConflictSide, ConflictsReply
from schemas.snapshot import Backup, BackupsReply
from schemas.subjects import Impact

BACKUP_COLUMNS = ("when", "size>", "reason", "*path")
CONFLICT_COLUMNS = ("id>", "when", "table", "~row", "kept", "lost")


@command("backups", impact=Impact.READ)
def backups(invocation: Invocation) -> None:
    """List the backups that were taken before the database was written to."""
    from membridge.cli.asking import ask  # noqa: PLC0415 - the bus is loaded only where it is used

    invocation.show(ask(invocation, subjects.BACKUPS, Empty()), print_backups)


@command("conflicts", impact=Impact.READ)
def conflicts(invocation: Invocation) -> None:
    """List rows that two machines changed differently: which version stayed, which one only this journal has."""
    from membridge.cli.asking import ask  # noqa: PLC0415 - the bus is loaded only where it is used

    invocation.show(ask(invocation, subjects.CONFLICTS, Empty()), print_conflicts)


def print_backups(reply: BackupsReply) -> None:
    """Print a line for each backup."""
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    def row(backup: Backup) -> tuple[str, ...]:
        return (tables.when(backup.created_at), units.size(backup.size_bytes), backup.reason, tables.short(backup.path))

    tables.table(BACKUP_COLUMNS, map(row, reply.backups), empty="no backup yet")


def print_conflicts(reply: ConflictsReply) -> None:
    """Print a line for each conflict."""
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    def row(conflict: Conflict) -> tuple[str, ...]:
        key = " ".join(", ".join(map(str, conflict.key)).split())
        sides = (_side(conflict.kept), _side(conflict.lost))
        return (str(conflict.id), tables.when(conflict.at), conflict.table, key, *sides)

    tables.table(CONFLICT_COLUMNS, map(row, reply.conflicts), empty="no conflict so far")
    if reply.conflicts:
        tables.line("`membridge conflicts --json` shows both versions of each row.")


def _side(side: ConflictSide) -> str:
    return side.origin if side.row is not None else f"{side.origin} (deleted)"
