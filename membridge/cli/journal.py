"""`membridge backups` and `conflicts`: what was kept, and where; a backup put back."""

from pathlib import Path

import click

from membridge.cli import units
from membridge.cli.command import DefaultGroup, Invocation, command
from membridge.cli.restore import confirm, describe_changes, print_changes
from schemas import subjects
from schemas.commits import MOST_ROWS, RestoreBackupReply, RestoreBackupRequest
from schemas.node import Empty
from schemas.proposal import Conflict, ConflictSide, ConflictsReply
from schemas.snapshot import Backup, BackupsReply
from schemas.subjects import Impact

BACKUP_COLUMNS = ("*id", "when", "size>", "reason")
CONFLICT_COLUMNS = ("id>", "when", "table", "~row", "kept", "lost")
_REST = "Rows that other machines have come back by themselves while the daemon runs, else with `membridge pull`."


@command("list", impact=Impact.READ)
def listing(invocation: Invocation) -> None:
    """List the backups that were taken before the database was written to."""
    from membridge.cli.asking import ask  # noqa: PLC0415 - the bus is loaded only where it is used

    invocation.show(ask(invocation, subjects.BACKUPS, Empty()), print_backups)


@command("restore", impact=Impact.WRITE)
@click.argument("backup", metavar="ID")
@click.option("--show", is_flag=True, help="List the rows that change, by their titles.")
@click.option("--yes", is_flag=True, help="Restore it without asking.")
@click.pass_context
def restore_backup(context: click.Context, invocation: Invocation, backup: str, show: bool, yes: bool) -> None:  # noqa: FBT001 - click's flags
    """Make this machine's database what it was in the backup ID, `newest` for the newest sound one.

    Shows what would change and asks first. Works on a damaged database too, which is kept. Rows that other machines
    have come back with the next pull.
    """
    from membridge.cli.asking import ask  # noqa: PLC0415 - the bus is loaded only where it is used

    limit = MOST_ROWS if show else 0
    if not yes:
        seen = ask(invocation, subjects.RESTORE_BACKUP, RestoreBackupRequest(backup=backup, limit=limit))
        invocation.show(seen, print_preview)
        if not seen.tables and not seen.damage:
            return
        confirm(context, invocation)
        backup = seen.backup
    request = RestoreBackupRequest(backup=backup, apply=True, limit=limit)
    reply = ask(invocation, subjects.RESTORE_BACKUP, request)
    invocation.show(reply, lambda reply: click.echo(describe_restored(reply)))


backups = DefaultGroup(
    "backups",
    default="list",
    commands=[listing, restore_backup],
    summary="List backups taken before writes, or put one back.",
)


@command("conflicts", impact=Impact.READ)
def conflicts(invocation: Invocation) -> None:
    """List rows that two machines changed differently: which version stayed, which one only this journal has."""
    from membridge.cli.asking import ask  # noqa: PLC0415 - the bus is loaded only where it is used

    invocation.show(ask(invocation, subjects.CONFLICTS, Empty()), print_conflicts)


def print_backups(reply: BackupsReply) -> None:
    """Print a line for each backup, and where they are."""
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    def row(backup: Backup) -> tuple[str, ...]:
        return (backup.id, tables.when(backup.created_at), units.size(backup.size_bytes), backup.reason)

    tables.table(BACKUP_COLUMNS, map(row, reply.backups), empty="no backup yet")
    if reply.backups:
        tables.line(f"\nin {tables.short(str(Path(reply.backups[0].path).parent))}")
        tables.line("`membridge backups restore ID` makes the database what it was in one.")


def print_preview(reply: RestoreBackupReply) -> None:
    """Print what putting a backup back would change."""
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    if reply.damage:
        tables.line(f"{reply.damage}\n")
    tables.line(f"what restoring backup {reply.backup} changes in this machine's database:\n")
    print_changes(reply.tables, reply.rows)
    if reply.tables:
        tables.line(f"\nOnly this machine's database changes. {_REST}")


def describe_restored(reply: RestoreBackupReply) -> str:
    """Return what putting a backup back did, as a sentence or more."""
    after = [f"the database is that of backup {reply.backup} ({describe_changes(reply.tables)})"]
    if reply.saved:
        after.append(f"backup of what was there: {reply.saved}")
    if reply.set_aside:
        after.append(f"the damaged database is kept as {reply.set_aside}")
    if reply.open_in:
        after.append(f"restart {', '.join(reply.open_in)}: it has the database open and remembers the former one")
    after.append(_REST)
    return "\n".join(after)


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
