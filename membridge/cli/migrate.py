"""`membridge migrate`: imports what claude-mem-minio left on this machine, and writes a report."""

import os
from pathlib import Path

import click

from membridge.cli import requests, tables
from membridge.cli.command import Invocation, command
from membridge.errors import MembridgeError, NotFoundError
from membridge.installation import migration
from membridge.installation.migration import MigrationReport, Remote
from schemas import subjects
from schemas.snapshot import PullOutcome, PullRequest
from schemas.subjects import Impact


@command("migrate", impact=Impact.WRITE)
@click.option("--dry-run", is_flag=True, help="Show what was found; write nothing.")
def migrate(invocation: Invocation, dry_run: bool) -> None:  # noqa: FBT001 - click's flag
    """Import settings and memory of claude-mem-minio, and write migration-report.json.

    Its files stay as they are. The memory that it stored is merged into this machine's, as `membridge pull` does.
    """
    home, settings = Path.home(), invocation.settings
    things = migration.found(home, os.environ, Path(os.environ.get("INSTALL_ROOT") or "/"))
    imported = migration.import_settings(settings, os.environ, home, write=not dry_run)
    remote, detail = (Remote.NOT_YET, "a dry run pulls nothing") if dry_run else _pull(invocation, home)
    made = migration.report(settings, things, imported, remote, detail, home)
    if not dry_run:
        migration.save(settings, made)
    invocation.show(made, lambda reply: _print(reply, written=not dry_run))


def _pull(invocation: Invocation, home: Path) -> tuple[Remote, str]:
    try:
        reply = requests.ask(invocation, subjects.PULL, PullRequest())
    except NotFoundError as error:
        return _nothing(invocation, home, error.message)
    except MembridgeError as error:
        return Remote.NOT_YET, f"{error.message}: {error.remedy}" if error.remedy else error.message
    if reply.seq:
        return Remote.SHARED, f"this machine has snapshot {reply.seq} now"
    if reply.outcome not in {PullOutcome.INSTALLED, PullOutcome.MERGED}:
        return _nothing(invocation, home, "the old tool stored nothing for this project")
    return Remote.IMPORTED, f"{reply.inserted} rows came, {reply.updated} changed, {reply.unsynced} are not shared yet"


def _nothing(invocation: Invocation, home: Path, why: str) -> tuple[Remote, str]:
    wrong = migration.wrong_id(home, invocation.settings.project.name)
    return (Remote.NOT_YET, wrong) if wrong else (Remote.NOTHING, why)


def _print(reply: MigrationReport, *, written: bool) -> None:
    rows = [(one.kind, one.path, one.detail) for one in reply.found]
    tables.table(("kind", "*path", "*found"), rows, empty="nothing of an older installation is here")
    taken = ", ".join(one.name for one in reply.settings)
    tables.line(f"\nsettings: {taken or 'none'}")
    tables.line(f"stored memory: {reply.remote}; {reply.remote_detail}")
    for step in reply.next:
        tables.line(f"next: {step}")
    if written:
        tables.line(f"Written: {reply.report}")
