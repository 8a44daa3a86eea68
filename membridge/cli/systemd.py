"""`membridge units`: the systemd units of this machine, for its node and for each installed service."""

from pathlib import Path

import click

from membridge.cli import tables
from membridge.cli.command import Invocation, command
from membridge.errors import NotFoundError
from schemas.subjects import Impact
from schemas.wire import Wire

_TEMPLATES = Path(__file__).parents[1] / "embedded" / "systemd"
NATS_SERVER, NODE = "nats-server.service", "membridge-node.service"


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


@command("units", impact=Impact.WRITE)
@click.argument("names", metavar="[UNIT]...", nargs=-1)
@click.option("--into", metavar="FOLDER", type=click.Path(path_type=Path), help="Write them: ~/.config/systemd/user.")
def units(invocation: Invocation, names: tuple[str, ...], into: Path | None) -> None:
    """List the systemd units, print the named ones, or write them with --into.

    Without names --into writes those that this machine's settings want: the node, and each service that is enabled.
    """
    every = _units(invocation)
    if unknown := sorted({*names} - {unit.name for unit in every}):
        known = ", ".join(unit.name for unit in every)
        raise NotFoundError(f"there is no unit {unknown[0]}", remedy=f"the units are {known}")
    chosen = [unit for unit in every if unit.name in names or (not names and (into is None or unit.wanted))]
    written = [] if into is None else [_save(into.expanduser() / unit.name, unit.text) for unit in chosen]
    reply = UnitsReply(units=chosen, written=written)
    invocation.show(reply, _print_texts if names and into is None else _print)


def _units(invocation: Invocation) -> list[Unit]:
    from membridge.wiring.service import installed  # noqa: PLC0415 - loaded only where it is used

    services, template = installed(), _template("service.template")
    after = " ".join(service.unit for service in services)
    return [
        Unit(name=NATS_SERVER, runs="nats-server", wanted=False, text=_template(NATS_SERVER)),
        Unit(name=NODE, runs="membridge node", wanted=True, text=_template(NODE).replace("@SERVICES@", after)),
        *(
            Unit(
                name=service.unit,
                runs=f"membridge {service.name}",
                wanted=service.chosen(invocation.settings),
                text=template.replace("@NAME@", service.name).replace("@SUMMARY@", service.summary),
            )
            for service in services
        ),
    ]


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text("utf-8")


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
        click.echo("Next: systemctl --user daemon-reload, then systemctl --user enable --now UNIT", err=True)
        return
    rows = [(unit.name, unit.runs, "yes" if unit.wanted else "no") for unit in reply.units]
    tables.table(("unit", "*runs", "wanted here"), rows, empty="no units")
