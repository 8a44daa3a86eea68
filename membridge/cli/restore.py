"""`membridge restore`: an earlier state as a file, or as the memory, after a look at what would change."""

import os
import secrets
import shutil
from pathlib import Path

import click

from membridge.cli import units
from membridge.cli.command import Invocation, command
from membridge.cli.diff import ROW_COLUMNS, described
from membridge.errors import ConflictError, DiskFullError
from membridge.system import files
from schemas import subjects
from schemas.commits import (
    MOST_ROWS,
    ExtractReply,
    ExtractRequest,
    RestoreReply,
    RestoreRequest,
    RowChange,
    RowDiff,
    TableDiff,
)
from schemas.subjects import Impact

CHANGE_COLUMNS = ("table", "back>", "removed>", "changed>", "kept>")
_BECOMES = {
    RowChange.CAME: "back",
    RowChange.WENT: "removed",
    RowChange.CHANGED: "changed",
    RowChange.KEPT: "kept",
}


@command("restore", impact=Impact.WRITE)
@click.option("--seq", type=click.IntRange(1), help="The snapshot of this number.")
@click.option("--at", metavar="TIME", help="The newest snapshot of that time, as 2026-01-31T18:00.")
@click.option("--tag", help="The snapshot of this tag.")
@click.option("--to", "target", type=click.Path(path_type=Path), metavar="FILE", help="Write it as a database file.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.option("--show", is_flag=True, help="List the rows that change or stay, by their titles.")
@click.option("--yes", is_flag=True, help="Restore the memory without asking.")
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
    """Bring an earlier state back: with --to as a file, else as the memory of all machines, by a new snapshot.

    Shows what would change and asks first. Rows that only this database lost come back, the newest snapshot's on any
    machine; rows that are in no snapshot yet stay.
    """
    state = chosen(seq, at, tag)
    if target is not None:
        if show:
            raise click.UsageError("--show goes without --to.")
        _to_file(invocation, state, target.absolute(), force=force)
        return
    if force:
        raise click.UsageError("--force goes with --to.")
    _to_memory(context, invocation, state, limit=MOST_ROWS if show else 0, yes=yes)


def chosen(seq: int | None, at: str | None, tag: str | None) -> str:
    """Return the state that the options name; raise click's usage error unless exactly one does."""
    names = [name for name in (str(seq) if seq else None, _instant(at) if at else None, tag) if name is not None]
    if len(names) != 1:
        raise click.UsageError("name one state: --seq N, --at TIME or --tag NAME.")
    return names[0]


def print_preview(reply: RestoreReply) -> None:
    """Print what a restore would change in this machine's database."""
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

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
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

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
        after.append(f"backup: {reply.backup}")
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
    from membridge.cli.asking import ask  # noqa: PLC0415 - the bus is loaded only where it is used

    if target.exists() and not force:
        raise _taken(target)
    reply = ask(invocation, subjects.EXTRACT, ExtractRequest(state=state))
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
    from membridge.cli.asking import ask  # noqa: PLC0415 - the bus is loaded only where it is used

    if not yes:
        seen = ask(invocation, subjects.RESTORE, RestoreRequest(state=state, limit=limit))
        invocation.show(seen, print_preview)
        if not seen.commits and not any(one.came or one.went or one.changed for one in seen.tables):
            return
        confirm(context, invocation)
        # What was shown is what is restored, whatever tag moves meanwhile.
        state = str(seen.state_seq)
    reply = ask(invocation, subjects.RESTORE, RestoreRequest(state=state, apply=True, limit=limit))
    invocation.show(reply, lambda reply: click.echo(describe_restored(reply)))


def confirm(context: click.Context, invocation: Invocation) -> None:
    """Ask whether to go on. Raises RefusedError for a no, and where there is no terminal to ask on."""
    if invocation.as_json:
        context.exit(1)
    invocation.confirm("\nrestore it?", otherwise="nothing was restored")


def _instant(text: str) -> str:
    try:
        return units.given_as_state(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a time: write it as 2026-01-31T18:00.", param_hint="--at") from error


def _taken(target: Path) -> ConflictError:
    return ConflictError(f"{target} is there already", remedy="choose another file, or overwrite it with --force")
