"""Encrypt what a node has in the object store, for `membridge key seal`: in this process, beside a daemon."""

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.bus.connection import connect
from membridge.commits import layout
from membridge.errors import SettingsError
from membridge.objectstore.encryption.rotate import Reencrypted, reencrypt
from membridge.objectstore.encryption.store import EncryptedStore
from membridge.settings import ProjectConfig, Settings
from membridge.system import files
from membridge.wiring.bus import bus_options
from membridge.wiring.store import key_source, open_backend


async def seal_projects(
    settings: Settings, projects: Sequence[ProjectConfig], *, progress: Callable[[str, int, int], None]
) -> tuple[str, dict[str, Reencrypted]]:
    """Encrypt what the store holds of `projects`; return the key's id and what was done by project.

    Errors: SettingsError while encryption is off, EncryptionKeyError, the store's.
    """
    if not settings.store.encrypted:
        raise SettingsError(
            "encryption is off on this node",
            remedy="run `membridge key new` and set MEMBRIDGE_ENCRYPTION_KEY_FILE on every node",
            field="store.encryption_key_file",
        )

    done: dict[str, Reencrypted] = {}
    work, encrypted_with = settings.node.state_dir / f"sealing-{secrets.token_hex(4)}", ""
    await threads.run(work.mkdir, mode=0o700, parents=True)
    try:
        for key in {project.nkey_seed_file for project in projects}:
            mine = [project for project in projects if project.nkey_seed_file == key]
            encrypted_with = await _seal_account(settings, key, mine, work, done, progress)
    finally:
        await threads.run(files.remove, work)
    return encrypted_with, done


async def _seal_account(
    settings: Settings,
    key: Path | None,
    projects: Sequence[ProjectConfig],
    work: Path,
    done: dict[str, Reencrypted],
    progress: Callable[[str, int, int], None],
) -> str:
    """Seal the projects that one connection reaches; return the key's id."""

    def soon() -> Deadline:
        return Deadline.after(settings.lane.operation_timeout_seconds)

    async with (
        connect(bus_options(settings, "membridge command", key), deadline=Deadline.after(5.0)) as bus,
        open_backend(bus, settings) as backend,
    ):
        store = EncryptedStore(backend, key_source(settings), accept_plain=True)
        for project in projects:
            done[project.name] = await reencrypt(
                store,
                layout.project(project.id),
                work,
                deadline=soon,
                progress=lambda at, of, name=project.name: progress(name, at, of),
            )
        await store.mark(deadline=soon())
        return (await store.describe(deadline=soon())).encrypted_with
