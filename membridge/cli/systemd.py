"""`membridge units`: what starts this machine's node, its services and nats-server, for the init that runs here."""

from pathlib import Path

import click

from membridge.cli import tables
from membridge.cli.command import Invocation, command
from membridge.embedded import unit_files
from membridge.embedded.unit_files import Kind
from membridge.errors import NotFoundError
from schemas.subjects import Impact
from schemas.wire import Wire

_NEXT = {
    Kind.USER: "systemctl --user daemon-reload, then systemctl --user enable --now UNIT",
    Kind.SYSTEM: "systemctl daemon-reload, then systemctl enable --now UNIT",
    Kind.OPENRC: "chmod 755 FILE, rc-update add FILE, then rc-service FILE start",
    Kind.LAUNCHD: "launchctl bootstrap gui/$(id -u) FILE",
}


class Unit(Wire, frozen=True, kw_only=True):
    """A unit: the name of its file, what it runs, whether this machine's settings want it, its text."""

    name: str
    runs: str
    wanted: bool
    text: str


class UnitsReply(Wire, frozen=True, kw_only=True):
    """The units, and the files that were written."""

    units: list[Unit]
    written: list[str]
    next: str


@command("units", impact=Impact.WRITE)
@click.argument("names", metavar="[UNIT]...", nargs=-1)
@click.option(
    "--for",
    "kind",
    type=click.Choice([kind.value for kind in Kind]),
    default=Kind.USER.value,
    show_default=True,
    help="What reads them.",
)
@click.option("--into", metavar="FOLDER", type=click.Path(path_type=Path), help="Write them: ~/.config/systemd/user.")
@click.option("--bin", "programs", metavar="FOLDER", type=click.Path(path_type=Path), help="Where the programs are.")
def units(invocation: Invocation, names: tuple[str, ...], kind: str, into: Path | None, programs: Path | None) -> None:
    """List the units, print the named ones, or write them with --into.

    Without names --into writes those that this machine's settings want: the node, and each service that is enabled.
    `--for user` and `--for system` are systemd's, the others those of OpenRC and launchd.
    """
    every = _units(invocation, Kind(kind), programs)
    if unknown := sorted({*names} - {unit.name for unit in every}):
        known = ", ".join(unit.name for unit in every)
        raise NotFoundError(f"there is no unit {unknown[0]}", remedy=f"the units are {known}")
    chosen = [unit for unit in every if unit.name in names or (not names and (into is None or unit.wanted))]
    written = [] if into is None else [_save(into.expanduser() / unit.name, unit.text) for unit in chosen]
    reply = UnitsReply(units=chosen, written=written, next=_NEXT[Kind(kind)])
    invocation.show(reply, _print_texts if names and into is None else _print)


def _units(invocation: Invocation, kind: Kind, programs: Path | None) -> list[Unit]:
    from membridge.wiring.service import installed  # noqa: PLC0415 - loaded only where it is used

    services = installed()
    names = tuple(service.name for service in services)

    def unit(runs: str, program: str, text: str, *, wanted: bool) -> Unit:
        if programs is not None:
            text = unit_files.with_programs(kind, text, programs.expanduser().absolute())
        return Unit(name=unit_files.file_name(kind, runs), runs=program, wanted=wanted, text=text)

    nats, node = (unit_files.infrastructure(kind, runs, services=names) for runs in ("nats", "node"))
    return [
        unit("nats", "nats-server", nats, wanted=False),
        unit("node", "membridge node", node, wanted=True),
        *(
            unit(
                service.name,
                f"membridge {service.name}",
                unit_files.of_service(kind, service.name, service.summary),
                wanted=service.chosen(invocation.settings),
            )
            for service in services
        ),
    ]


def _save(file: Path, text: str) -> str:
    from membridge.system import files  # noqa: PLC0415 - only where something is written

    with files.translated(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    files.save(file, text.encode())
    return str(file)


def _print_texts(reply: UnitsReply) -> None:
    click.echo("\n".join(unit.text for unit in reply.units), nl=False)


def _print(reply: UnitsReply) -> None:
    for file in reply.written:
        click.echo(f"Written: {file}", err=True)
    if reply.written:
        click.echo(f"Next: {reply.next}", err=True)
        return
    rows = [(unit.name, unit.runs, "yes" if unit.wanted else "no") for unit in reply.units]
    tables.table(("unit", "*runs", "wanted here"), rows, empty="no units")
