"""`membridge key`: the keys that encrypt this node's objects. A key itself is never printed."""

import asyncio
from pathlib import Path

import click

from membridge.cli import progress, tables
from membridge.cli.command import DefaultGroup, Invocation, command, quiet
from membridge.errors import ConflictError, InvalidRequestError, NotOnWindowsError
from membridge.objectstore.encryption.keys import Key, new_key, read_file, write_file
from membridge.system.windows import on_windows
from schemas.subjects import Impact
from schemas.wire import Wire

#: The key file's name where none is configured.
FILE = "sealing.keys"
#: Most keys of one file: as many rotations before the oldest must go.
MOST = 64


class ShownKey(Wire, frozen=True, kw_only=True):
    """A key by its id, and whether it encrypts or only decrypts."""

    id: str
    seals: bool


class KeysReply(Wire, frozen=True, kw_only=True):
    """The keys of this node's file, whether the file is configured, and whether there is a passphrase."""

    path: str | None = None
    configured: bool
    passphrase: bool = False
    keys: list[ShownKey]
    next: str = ""


class SealedProject(Wire, frozen=True, kw_only=True):
    """Objects of a project that were plain, that had an older key, and that were fine already."""

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
    """Show the ids of this node's keys."""
    store = invocation.settings.store
    keys = read_file(store.encryption_key_file) if store.encryption_key_file else ()
    invocation.show(_reply(invocation, store.encryption_key_file, keys), _print)


@command("new", impact=Impact.WRITE)
@click.option("--file", "file", metavar="PATH", help="Where to write it.  [default: the configured file]")
def new(invocation: Invocation, file: str | None) -> None:
    """Make a key file with one key; never overwrites a file."""
    path = Path(file).expanduser().absolute() if file else _place(invocation)
    if path.exists():
        raise ConflictError(f"{path} already exists", remedy="to add a key to it run `membridge key rotate`")
    keys = (new_key(),)
    write_file(path, keys)
    advice = (
        f"keep a copy elsewhere: without the key the object store cannot be read. Copy the file to every node, set "
        f"MEMBRIDGE_ENCRYPTION_KEY_FILE={path} there and restart; then run `membridge key seal` once"
    )
    invocation.show(_reply(invocation, path, keys, advice), _print)


@command("rotate", impact=Impact.WRITE)
def rotate(invocation: Invocation) -> None:
    """Add a key that encrypts from now on; older keys still decrypt."""
    path = invocation.settings.store.encryption_key_file
    if path is None:
        raise InvalidRequestError(
            "no key file is configured",
            remedy="run `membridge key new` and set MEMBRIDGE_ENCRYPTION_KEY_FILE; the passphrase still decrypts",
        )
    keys = (new_key(), *read_file(path))
    if len(keys) > MOST:
        raise InvalidRequestError(
            f"{path} holds {MOST} keys, and no more are allowed",
            remedy="run `membridge key seal`, then remove the oldest lines of the file",
        )
    write_file(path, keys)
    advice = (
        "copy the file to every node now: a node without the new key cannot read what this node writes. Then run "
        "`membridge key seal` once; after that the old lines may go"
    )
    invocation.show(_reply(invocation, path, keys, advice), _print)


@command("seal", impact=Impact.WRITE)
def seal(invocation: Invocation) -> None:
    """Encrypt what the store holds plain or under an older key.

    Run it once after turning encryption on, and after each rotation. It trusts the plain objects that it finds.
    """
    if on_windows():
        raise NotOnWindowsError("a node encrypts the objects of a store, and none runs on Windows")
    from membridge.node import registry  # noqa: PLC0415 - as above
    from membridge.node.sealing import seal_projects  # noqa: PLC0415 - as above

    named = invocation.project_name
    projects = [one for one in registry.load(invocation.settings) if named in {None, one.name, one.id}]
    if not projects:
        raise InvalidRequestError(
            f"this node does not serve project {named!r}", remedy="run `membridge project list`", field="project"
        )
    quiet(invocation.settings)
    with progress.shown("seal", quiet=invocation.as_json) as meter:
        key_id, done = asyncio.run(seal_projects(invocation.settings, projects, progress=meter))
    found = [
        SealedProject(project=name, unsealed=one.unsealed, older=one.older, kept=one.kept) for name, one in done.items()
    ]
    invocation.show(SealReply(key=key_id, projects=found), _print_sealed)


key = DefaultGroup(
    "key", default="show", commands=[show, new, rotate, seal], summary="Make, rotate and show encryption keys."
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
    if reply.path is None:
        tables.line(
            "encryption is on, with a passphrase" if reply.passphrase else "encryption is off: no key is configured"
        )
        return
    rows = [(one.id, "encrypts and decrypts" if one.seals else "decrypts") for one in reply.keys]
    tables.table(("key", "does"), rows, empty="no key")
    tables.line(f"\n{reply.path}{'' if reply.configured else '  (not configured yet)'}")
    if reply.next:
        tables.line(f"next: {reply.next}")


def _print_sealed(reply: SealReply) -> None:
    rows = [(one.project, str(one.unsealed), str(one.older), str(one.kept)) for one in reply.projects]
    tables.table(("project", "were plain>", "had an older key>", "were fine>"), rows, empty="no project")
    tables.line(f"\nencrypted with key {reply.key}")
