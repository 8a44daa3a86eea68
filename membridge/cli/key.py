"""`membridge key`: the keys that seal this node's objects. A key itself is never printed."""

import asyncio
from pathlib import Path

import click

from membridge.cli.command import DefaultGroup, Invocation, command, quiet
from membridge.errors import ConflictError, InvalidRequestError
from membridge.objectstore.encryption.keys import Key, new_key, read_file, write_file
from schemas.subjects import Impact
from schemas.wire import Wire

#: The key file's name where none is configured.
FILE = "sealing.keys"
#: Most keys of one file: as many rotations before the oldest must go.
MOST = 64


class ShownKey(Wire, frozen=True, kw_only=True):
    """A key by its id, and whether it seals or only opens."""

    id: str
    seals: bool


class KeysReply(Wire, frozen=True, kw_only=True):
    """The keys of this node: the file's, and whether there is a passphrase; `configured` says that the file is used."""

    path: str | None = None
    configured: bool
    passphrase: bool = False
    keys: list[ShownKey]
    next: str = ""


class SealedProject(Wire, frozen=True, kw_only=True):
    """What sealing found of a project: objects that were unsealed, sealed with an older key, and fine already."""

    project: str
    unsealed: int
    older: int
    kept: int


class SealReply(Wire, frozen=True, kw_only=True):
    """What `key seal` did, and with which key."""

    key: str
    projects: list[SealedProject]


@command("show", impact=Impact.READ)
def show(invocation: Invocation) -> None:
    """Show which keys this node has, by their ids."""
    store = invocation.settings.store
    keys = read_file(store.encryption_key_file) if store.encryption_key_file else ()
    invocation.show(_reply(invocation, store.encryption_key_file, keys), _print)


@command("new", impact=Impact.WRITE)
@click.option("--file", "file", metavar="PATH", help="Where to write it; the configured place when there is one.")
def new(invocation: Invocation, file: str | None) -> None:
    """Make a key file with one key; an existing file is never overwritten."""
    path = Path(file).expanduser().absolute() if file else _place(invocation)
    if path.exists():
        raise ConflictError(f"{path} exists already", remedy="to add a key to it run `membridge key rotate`")
    keys = (new_key(),)
    write_file(path, keys)
    advice = (
        f"keep a copy elsewhere: without it nobody reads the memory in the object store. Copy it to every node, "
        f"set MEMBRIDGE_ENCRYPTION_KEY_FILE={path} there and restart; then run `membridge key seal` once"
    )
    invocation.show(_reply(invocation, path, keys, advice), _print)


@command("rotate", impact=Impact.WRITE)
def rotate(invocation: Invocation) -> None:
    """Add a new key that seals from now on; the old ones still open."""
    path = invocation.settings.store.encryption_key_file
    if path is None:
        raise InvalidRequestError(
            "no key file is configured",
            remedy="run `membridge key new` and set MEMBRIDGE_ENCRYPTION_KEY_FILE; a passphrase beside it still opens",
        )
    keys = (new_key(), *read_file(path))
    if len(keys) > MOST:
        raise InvalidRequestError(
            f"{path} holds {MOST} keys already", remedy="run `membridge key seal` and remove the old lines"
        )
    write_file(path, keys)
    advice = (
        "copy the file to every node now: those without the new key cannot read what this one writes from now on. "
        "Then run `membridge key seal` once, and remove the old lines where you like"
    )
    invocation.show(_reply(invocation, path, keys, advice), _print)


@command("seal", impact=Impact.WRITE)
def seal(invocation: Invocation) -> None:
    """Seal with the present key what the object store holds unsealed or under an older one.

    Run it once after encryption was turned on, and after a rotation. It takes what is there as it is.
    """
    from membridge.cli import progress  # noqa: PLC0415 - loaded only where something is sealed
    from membridge.node import registry  # noqa: PLC0415 - as above
    from membridge.node.sealing import seal_projects  # noqa: PLC0415 - as above

    named = invocation.project_name
    projects = [one for one in registry.load(invocation.settings) if named in {None, one.name, one.id}]
    if not projects:
        raise InvalidRequestError(f"this node does not serve project {named!r}", field="project")
    quiet(invocation.settings)
    with progress.shown("seal", quiet=invocation.as_json) as meter:
        key_id, done = asyncio.run(seal_projects(invocation.settings, projects, progress=meter))
    found = [
        SealedProject(project=name, unsealed=one.unsealed, older=one.older, kept=one.kept) for name, one in done.items()
    ]
    invocation.show(SealReply(key=key_id, projects=found), _print_sealed)


key = DefaultGroup(
    "key", default="show", commands=[show, new, rotate, seal], summary="Make, rotate and show the keys of encryption."
)


def _place(invocation: Invocation) -> Path:
    return invocation.settings.store.encryption_key_file or invocation.settings.node.config_dir / FILE


def _reply(invocation: Invocation, path: Path | None, keys: tuple[Key, ...], advice: str = "") -> KeysReply:
    store = invocation.settings.store
    return KeysReply(
        path=str(path) if path else None,
        configured=path is not None and path == store.encryption_key_file,
        passphrase=store.encryption_passphrase is not None,
        keys=[ShownKey(id=one.id, seals=number == 0) for number, one in enumerate(keys)],
        next=advice,
    )


def _print(reply: KeysReply) -> None:
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    if reply.path is None:
        tables.line("encryption is on, by passphrase" if reply.passphrase else "encryption is off: there is no key")
        return
    rows = [(one.id, "seals and opens" if one.seals else "opens") for one in reply.keys]
    tables.table(("key", "does"), rows, empty="no key")
    tables.line(f"\n{reply.path}{'' if reply.configured else '  (not configured yet)'}")
    if reply.next:
        tables.line(f"next: {reply.next}")


def _print_sealed(reply: SealReply) -> None:
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    rows = [(one.project, str(one.unsealed), str(one.older), str(one.kept)) for one in reply.projects]
    tables.table(("project", "were unsealed>", "had an older key>", "were fine>"), rows, empty="no project")
    tables.line(f"\nsealed with key {reply.key}")
