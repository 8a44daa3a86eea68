"""`membridge restore` and `backups`: bring an earlier state back, after a look at what would change."""

import os
import secrets
import shutil
from pathlib import Path

import click

from membridge.cli import requests, tables, units
from membridge.cli.command import DefaultGroup, Invocation, command
from membridge.cli.history import ROW_COLUMNS, described
from membridge.errors import ConflictError, DiskFullError
from membridge.system import files
from schemas import subjects
from schemas.commits import (
    MOST_ROWS,
    ExtractReply,
    ExtractRequest,
    RestoreBackupReply,
    RestoreBackupRequest,
    RestoreReply,
    RestoreRequest,
    RowChange,
    RowDiff,
    TableDiff,
)
from schemas.node import Empty
from schemas.snapshot import Backup, BackupsReply
from schemas.subjects import Impact

CHANGE_COLUMNS = ("table", "back>", "removed>", "changed>", "kept>")
_BECOMES = {
    RowChange.CAME: "back",
    RowChange.WENT: "removed",
    RowChange.CHANGED: "changed",
    RowChange.KEPT: "kept",
}


@command("restore", impact=Impact.WRITE)
@click.option("--seq", type=click.IntRange(1), metavar="N", help="Snapshot N.")
@click.option("--at", metavar="TIME", help="The newest snapshot at that time, as 2026-01-31T18:00.")
@click.option("--tag", metavar="NAME", help="The snapshot with this tag.")
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the state to FILE as a database; the memory stays as it is.",
)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.option("--show", is_flag=True, help="List the rows by their titles.")
@click.option("--yes", is_flag=True, help="Restore without asking.")
@click.pass_context
def restore(  # noqa: PLR0913, PLR0917 - click's options
    context: click.Context,
    invocation: Invocation,
    seq: int | None,
    at: str | None,
    tag: str | None,
    target: Path | None,
    force: bool,  # noqa: FBT001 - click's flag
    show: bool,  # noqa: FBT001 - click's flag
    yes: bool,  # noqa: FBT001 - click's flag
) -> None:
    """Bring an earlier state back, as a file or as the memory.

    Without --to the state becomes the memory of all machines, as a new snapshot. The command shows what would change
    and asks first. Rows that are in no snapshot yet stay.
    """
    state = chosen(seq, at, tag)
    if target is not None:
        if show:
            raise click.UsageError("--show and --to cannot be combined.")
        _to_file(invocation, state, target.absolute(), force=force)
        return
    if force:
        raise click.UsageError("--force needs --to.")
    _to_memory(context, invocation, state, limit=MOST_ROWS if show else 0, yes=yes)


def chosen(seq: int | None, at: str | None, tag: str | None) -> str:
    """Return the state that the options name; raise click's usage error unless exactly one does."""
    names = [name for name in (str(seq) if seq else None, _instant(at) if at else None, tag) if name is not None]
    if len(names) != 1:
        raise click.UsageError("choose one state: --seq N, --at TIME or --tag NAME.")
    return names[0]


def print_preview(reply: RestoreReply) -> None:
    """Print what a restore would change in this machine's database."""
    tables.line(f"what restoring snapshot {reply.state_seq} changes in this machine's database:\n")
    print_changes(reply.tables, reply.rows)
    if not reply.listed_all and reply.rows:
        tables.line("… and more rows; the counts above are complete")
    if reply.unsynced:
        tables.line(f"\nkept: {units.count(reply.unsynced, 'row')} that no snapshot has")
    if reply.commits:
        tables.line("\nRestoring commits this as a new snapshot; the other machines then change in the same way.")


def print_changes(found: list[TableDiff], rows: list[RowDiff]) -> None:
    """Print how many rows of each table a restore changes, and those rows that are listed."""

    def counts(one: TableDiff) -> tuple[str, ...]:
        numbers = (one.came, one.went, one.changed, one.kept)
        return (one.table, *(f"{number:,}" if number else "" for number in numbers))

    tables.table(CHANGE_COLUMNS, map(counts, found), empty="nothing")
    if rows:
        tables.line("")
        tables.table(ROW_COLUMNS, ((_BECOMES[row.change], row.table, described(row)) for row in rows), empty="")


def describe_changes(found: list[TableDiff]) -> str:
    """Return how many rows a restore changed, in words."""
    totals = (
        (sum(one.came for one in found), "back"),
        (sum(one.went for one in found), "removed"),
        (sum(one.changed for one in found), "as they were"),
    )
    return ", ".join(f"{number:,} {word}" for number, word in totals if number) or "no row changed"


def describe_restored(reply: RestoreReply) -> str:
    """Return what a restore did, as a sentence or two."""
    committed = f"committed as snapshot {reply.seq}" if reply.commits else f"snapshot {reply.seq} stays the newest"
    rows = describe_changes(reply.tables)
    after = [f"the database is that of snapshot {reply.state_seq} again ({rows}); {committed}"]
    if reply.unsynced:
        after.append(f"kept: {units.count(reply.unsynced, 'row')} that no snapshot had")
    if reply.backup:
        after.append(f"backup: {Path(reply.backup).stem}")
    return "\n".join(after)


def place(source: Path, target: Path, *, force: bool) -> None:
    """Make `target` a copy of `source` for this user alone: whole, or not there; never over a file unless `force`.

    Errors: ConflictError, DiskFullError, MembridgeError for what the system says.
    """
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        if not force and (target.exists() or target.is_symlink()):
            raise _taken(target)
        free, needed = shutil.disk_usage(target.parent).free, source.stat().st_size
        if free < needed:
            raise DiskFullError(f"no room to write {target}: {needed} bytes needed, {free} free")
        part.touch(mode=0o600)
        shutil.copyfile(source, part)
        if force:
            files.put_in_place(part, target)
        else:
            files.sync_path(part)
            os.link(part, target)
            files.sync_path(target.parent)
    except FileExistsError as error:
        raise _taken(target) from error
    except OSError as error:
        raise files.meaning(error, target, remedy="choose another file") from error
    finally:
        part.unlink(missing_ok=True)


def _to_file(invocation: Invocation, state: str, target: Path, *, force: bool) -> None:
    if target.exists() and not force:
        raise _taken(target)
    reply = requests.ask(invocation, subjects.EXTRACT, ExtractRequest(state=state))
    made = Path(reply.path)
    try:
        place(made, target, force=force)
    finally:
        made.unlink(missing_ok=True)
    done = ExtractReply(
        path=str(target), seq=reply.seq, created_at=reply.created_at, rows=reply.rows, size_bytes=reply.size_bytes,
        seconds=reply.seconds, job_id=reply.job_id,
    )  # fmt: skip
    size = units.size(done.size_bytes)
    invocation.show(done, lambda done: click.echo(f"wrote snapshot {done.seq} to {done.path} ({size})"))


def _to_memory(context: click.Context, invocation: Invocation, state: str, *, limit: int, yes: bool) -> None:
    if not yes:
        seen = requests.ask(invocation, subjects.RESTORE, RestoreRequest(state=state, limit=limit))
        invocation.show(seen, print_preview)
        if not seen.commits and not any(one.came or one.went or one.changed for one in seen.tables):
            return
        confirm(context, invocation)
        # What was shown is what is restored, whatever tag moves meanwhile.
        state = str(seen.state_seq)
    reply = requests.ask(invocation, subjects.RESTORE, RestoreRequest(state=state, apply=True, limit=limit))
    invocation.show(reply, lambda reply: click.echo(describe_restored(reply)))


def confirm(context: click.Context, invocation: Invocation) -> None:
    """Ask whether to go on. Raises RefusedError for a no, and without a terminal."""
    if invocation.as_json:
        context.exit(1)
    invocation.confirm("\nrestore it?", otherwise="nothing was restored")


def _instant(text: str) -> str:
    try:
        return units.given_as_state(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a time: write it as 2026-01-31T18:00.", param_hint="--at") from error


def _taken(target: Path) -> ConflictError:
    return ConflictError(f"{target} already exists", remedy="choose another file, or overwrite it with --force")


BACKUP_COLUMNS = ("*id", "when", "holds", "size>")
_STAYS = "Rows that only claude-mem wrote stay as they are."
_REST = "The daemon brings back the rows of other machines; without it run `membridge pull`."


@command("list", impact=Impact.READ)
def list_backups(invocation: Invocation) -> None:
    """List the backups of this machine's database.

    One is made before each write. A full copy is the whole database; any other backup holds the rows that Membridge was
    about to write.
    """
    invocation.show(requests.ask(invocation, subjects.BACKUPS, Empty()), print_backups)


@command("restore", impact=Impact.WRITE)
@click.argument("backup", metavar="ID")
@click.option("--show", is_flag=True, help="List the rows by their titles.")
@click.option("--yes", is_flag=True, help="Restore without asking.")
@click.pass_context
def restore_backup(context: click.Context, invocation: Invocation, backup: str, show: bool, yes: bool) -> None:  # noqa: FBT001 - click's flags
    """Restore this machine's database from a backup.

    ID is one of `membridge backups`, or `newest` for the newest one that can be restored. A full copy replaces the
    database, a damaged one too, which is kept as a file. Any other backup takes back what Membridge wrote since; rows
    that only claude-mem wrote stay. The command shows what would change and asks first. The next pull brings back the
    rows of other machines.
    """
    limit = MOST_ROWS if show else 0
    if not yes:
        seen = requests.ask(invocation, subjects.RESTORE_BACKUP, RestoreBackupRequest(backup=backup, limit=limit))
        invocation.show(seen, print_backup_preview)
        if not seen.tables and not seen.damage:
            return
        confirm(context, invocation)
        backup = seen.backup
    request = RestoreBackupRequest(backup=backup, apply=True, limit=limit)
    reply = requests.ask(invocation, subjects.RESTORE_BACKUP, request)
    invocation.show(reply, lambda reply: click.echo(describe_backup_restored(reply)))


backups = DefaultGroup(
    "backups",
    default="list",
    commands=[list_backups, restore_backup],
    summary="List the backups of this machine's database, or restore one.",
)


def print_backups(reply: BackupsReply) -> None:
    """Print a line for each backup, and where they are."""

    def row(backup: Backup) -> tuple[str, ...]:
        size = units.size(backup.size_bytes)
        return (backup.id, tables.when(backup.created_at), holds(backup), size)

    tables.table(BACKUP_COLUMNS, map(row, reply.backups), empty="no backup yet")
    if reply.backups:
        tables.line(f"\nin {tables.short(str(Path(reply.backups[0].path).parent))}")
        tables.line("`membridge backups restore ID` restores one.")


def holds(backup: Backup) -> str:
    """Return what a backup holds, in words."""
    return "full copy" if backup.full_copy else units.count(backup.rows, "row")


def print_backup_preview(reply: RestoreBackupReply) -> None:
    """Print what putting a backup back would change."""
    if reply.damage:
        tables.line(f"{reply.damage}\n")
    tables.line(f"what restoring backup {reply.backup} changes in this machine's database:\n")
    print_changes(reply.tables, reply.rows)
    if reply.tables and reply.writes:
        tables.line(f"\nMembridge's last {units.count(reply.writes, 'write')} would be taken back.")
        tables.line(_STAYS)
    if reply.tables:
        tables.line(f"\nOnly this machine's database changes. {_REST}")


def describe_backup_restored(reply: RestoreBackupReply) -> str:
    """Return what putting a backup back did, as a sentence or more."""
    changed = describe_changes(reply.tables)
    after = [f"the database is that of backup {reply.backup} ({changed})"]
    if reply.writes:
        after = [f"{units.count(reply.writes, 'write')} taken back, to backup {reply.backup} ({changed})", _STAYS]
        if kept := sum(one.kept for one in reply.tables):
            after.append(f"left as they are: {units.count(kept, 'row')} that claude-mem changed or refers to")
    if reply.saved:
        after.append(f"backup of what was there: {Path(reply.saved).stem}")
    if reply.set_aside:
        after.append(f"the damaged database is kept as {reply.set_aside}")
    if reply.open_in:
        after.append(f"restart {', '.join(reply.open_in)}: it still has the old database open")
    after.append(_REST)
    return "\n".join(after)
