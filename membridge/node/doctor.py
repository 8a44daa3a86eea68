"""Doctor: check everything that a node needs; name each problem and its remedy.

Each check is a function that returns a line; one that fails to finish becomes a FAIL line of its own, and one that
needs something that is away says that it was not made. Nothing is changed: the object it writes to test the store is
deleted again.
"""

import asyncio
import errno
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import apsw

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.bus import health
from membridge.bus.connection import Bus
from membridge.bus.kv import Kv
from membridge.claudemem import database, worker_process
from membridge.errors import MembridgeError
from membridge.merge.audit import AUDIT_FILE, noted
from membridge.merge.row_index import INDEX_FILE, missed_in
from membridge.node import hooks_check, leadership_part, services_check
from membridge.node.findings import fail, ok, warn
from membridge.node.reached import Reached
from membridge.settings import ProjectConfig, Settings, StoreKind
from membridge.system import clock, files
from membridge.system.files import meaning
from membridge.wiring.lane import lane_folder
from schemas import buckets
from schemas.node import Check, Finding

#: Seconds one check may take.
CHECK_DEADLINE = 15.0
#: Clock skew that people notice, and one that breaks certificates and signatures, in seconds.
SKEW_WARN, SKEW_FAIL = 5.0, 300.0
#: Versions of SQLite whose WAL may be damaged when two processes write (sqlite.org, WAL-reset bug, fixed in 3.51.3).
WAL_RESET_FIXED = (3, 51, 3)
#: A write-ahead log of this size is not being checkpointed by its program.
LARGE_WAL_BYTES = 256 << 20

Examination = Callable[[Deadline], Awaitable[Check]]

#: Checks that need NATS: without it they are skipped.
OVER_NATS = ("jetstream", "lock", "leadership", "clock")


class _SkippedError(MembridgeError):
    """A check that was skipped because what it needs is not available."""


class Doctor:
    """Examines one project on this node."""

    def __init__(self, settings: Settings, config: ProjectConfig, reached: Reached) -> None:
        self._settings, self._config, self._reached = settings, config, reached

    async def examine(self, *, deadline: Deadline) -> list[Check]:
        """Return all lines, in a fixed order; the checks run at the same time."""
        checks: dict[str, Examination] = {
            "settings": self._check_settings,
            "daemon": self._check_daemon,
            "project": self._check_project,
            "nats": self._check_nats,
            "jetstream": self._check_jetstream,
            "object store": self._check_store,
            "encryption": self._check_encryption,
            "lock": self._check_lock,
            "leadership": self._check_leadership,
            "database": self._check_database,
            "rows": self._check_rows,
            "sqlite": self._check_sqlite,
            "claude-mem worker": self._check_worker,
            "hooks": self._check_hooks,
            "disk": self._check_disk,
            "clock": self._check_clock,
        }
        services = await threads.run(services_check.checks, self._settings)
        checks |= services
        async with asyncio.TaskGroup() as group:
            tasks = {
                name: group.create_task(_line(name, check, deadline.sooner(CHECK_DEADLINE)))
                for name, check in checks.items()
            }
        return _without_guesses({name: task.result() for name, task in tasks.items()}, [*OVER_NATS, *services])

    async def _check_settings(self, deadline: Deadline) -> Check:
        del deadline
        warnings = self._settings.warnings
        if warnings:
            return warn("settings", "; ".join(warnings), "see `membridge config show`")
        return ok("settings", f"node {self._settings.node.id}, project {self._config.name}")

    async def _check_daemon(self, deadline: Deadline) -> Check:
        del deadline
        return await threads.run(self._reached.daemon)

    async def _check_project(self, deadline: Deadline) -> Check:
        del deadline
        if self._reached.project is not None:
            raise self._reached.project
        return ok("project", f"{self._config.name} ({self._config.id})")

    async def _check_nats(self, deadline: Deadline) -> Check:
        if isinstance(self._reached.bus, MembridgeError):
            raise self._reached.bus
        began = asyncio.get_running_loop().time()
        await health.jetstream_use(self._reached.bus, deadline=deadline)
        elapsed = asyncio.get_running_loop().time() - began
        return ok("nats", f"server {self._reached.bus.server_version}, round trip {elapsed * 1000:.1f} ms")

    async def _check_jetstream(self, deadline: Deadline) -> Check:
        account = await health.jetstream_use(self._bus(), deadline=deadline)
        used = f"{account.streams} streams, {account.storage_bytes / 1e6:.1f} MB stored"
        if account.storage_limit_bytes > 0 and account.storage_bytes > 0.9 * account.storage_limit_bytes:
            return warn("jetstream", f"{used}, nearly full", "raise max_file_store in nats-server.conf")
        return ok("jetstream", used)

    async def _check_store(self, deadline: Deadline) -> Check:
        store = self._reached.store
        if isinstance(store, MembridgeError):
            # Snapshots in NATS are as far away as NATS, which has a line of its own.
            in_nats = self._settings.store.backend is StoreKind.JETSTREAM
            raise self._skipped(store) if in_nats and isinstance(self._reached.bus, MembridgeError) else store
        key, body = f"projects/{self._config.id}/doctor/{secrets.token_hex(8)}", b"membridge doctor"
        described = await store.describe(deadline=deadline)
        await store.put(key, body, deadline=deadline)
        try:
            if await store.get(key, deadline=deadline) != body:
                return fail("object store", "what was read is not what was written", "check the store's health")
        finally:
            await store.delete(key, deadline=deadline)
        where = f"{described.kind} at {described.location}: write, read, delete"
        if not described.conditional_put:
            remedy = "upgrade the server (MinIO since 2025-08): until then only NATS fences commits"
            return warn("object store", f"{where}; no conditional writes", remedy)
        return ok("object store", where)

    async def _check_encryption(self, deadline: Deadline) -> Check:
        store = self._reached.store
        if isinstance(store, MembridgeError):
            raise self._skipped(store)
        described = await store.describe(deadline=deadline)
        if not described.encrypted_with:
            return ok("encryption", f"off: the operator of the store at {described.location} can read the memory")
        if described.decrypted_with:
            found = (
                f"encrypted with key {described.encrypted_with}, also decrypted with "
                f"{', '.join(described.decrypted_with)}"
            )
            remedy = "when every node has the new key, run `membridge key seal` and remove the old one"
            return warn("encryption", found, remedy)
        return ok("encryption", f"encrypted with key {described.encrypted_with}")

    async def _check_lock(self, deadline: Deadline) -> Check:
        held = await Kv(self._bus(), buckets.PUSH_LEASES).get(self._config.id, deadline=deadline)
        if held is None:
            return ok("lock", "no push is running")
        return ok("lock", f"{held.value.owner} has been pushing since {clock.local(held.value.since)}")

    async def _check_leadership(self, deadline: Deadline) -> Check:
        if not self._settings.leadership.enabled:
            return ok("leadership", "roles are off: every node commits")
        reply = await leadership_part.seen(self._bus(), self._config.id, self._settings, deadline=deadline)
        record = reply.leader
        if record is None:
            chosen = f" ({reply.preferred} is preferred)" if reply.preferred else ""
            detail = f"no node is primary{chosen}: proposals wait and no snapshot is committed"
            return warn("leadership", detail, "run `membridge leader select NODE`")
        mine = "this node" if record.primary_node_id == self._settings.node.id else str(record.primary_node_id)
        return ok("leadership", f"{mine} is primary, epoch {record.epoch}, policy {reply.policy}")

    async def _check_database(self, deadline: Deadline) -> Check:
        path = self._config.database
        facts = await threads.run(database.inspect, path, deadline=deadline)
        await threads.run(database.quick_check, path, deadline=deadline)
        head = await self._head(deadline)
        return ok("database", f"{sum(facts.rows.values())} rows, schema {facts.schema_version}, sound, {head}")

    async def _head(self, deadline: Deadline) -> str:
        try:
            known = await Kv(self._bus(), buckets.HEADS).get(self._config.id, deadline=deadline.sooner(5.0))
        except MembridgeError:
            return "the head was not checked"
        return f"head at seq {known.value.record.seq}" if known else "no snapshot yet"

    async def _check_rows(self, deadline: Deadline) -> Check:
        del deadline
        folder = lane_folder(self._settings, self._config)
        missed, note = await threads.run(missed_in, folder / INDEX_FILE), await threads.run(noted, folder / AUDIT_FILE)
        compared = (
            f"all were compared last at {clock.local(note.ended_at)}" if note.ended_at else "none was compared yet"
        )
        if note.is_under_way:
            compared += f", and are being compared since {clock.local(note.began_at)}"
        if missed:
            return warn(
                "rows",
                f"comparisons of everything found {missed} keys that had been missed, and healed them; {compared}",
                "please report it with this node's log",
            )
        return ok("rows", f"no change was missed; {compared}")

    async def _check_sqlite(self, deadline: Deadline) -> Check:
        del deadline
        import sqlite3  # noqa: PLC0415 - a megabyte that only this line needs

        ours, python = apsw.sqlite_lib_version(), sqlite3.sqlite_version
        detail = f"membridge uses {ours}, this Python has {python}"
        wal = await threads.run(_wal_bytes, self._config.database)
        if tuple(int(part) for part in ours.split(".")[:3]) < WAL_RESET_FIXED:
            return fail("sqlite", detail, "reinstall membridge: its SQLite may damage a shared write-ahead log")
        if wal > LARGE_WAL_BYTES:
            return warn("sqlite", f"{detail}; the WAL has {wal / 1e6:.0f} MB", "restart claude-mem's worker")
        return ok("sqlite", f"{detail}; WAL {wal / 1e6:.1f} MB")

    async def _check_worker(self, deadline: Deadline) -> Check:
        found = await worker_process.find_worker(self._settings.node.claude_mem_dir, deadline=deadline.sooner(3.0))
        if found is None:
            return ok("claude-mem worker", "not running; Claude Code starts it when it needs it")
        if not found.healthy:
            remedy = "restart Claude Code, or the worker by claude-mem's own command"
            return warn("claude-mem worker", f"pid {found.pid} does not answer on port {found.port}", remedy)
        return ok("claude-mem worker", f"pid {found.pid}, version {found.version or 'unknown'}, port {found.port}")

    async def _check_hooks(self, deadline: Deadline) -> Check:
        del deadline
        return await threads.run(hooks_check.check, self._settings)

    async def _check_disk(self, deadline: Deadline) -> Check:
        del deadline
        state = self._settings.node.state_dir
        free = await threads.run(files.free_bytes, state)
        size = await threads.run(_size, self._config.database)
        detail = f"{free / 1e9:.1f} GB free at {state}"
        if refused := await threads.run(_refused, (state, self._config.database.parent)):
            return fail("disk", refused, "make it writable: nothing is pushed or pulled until then")
        if free < 2 * size:
            return fail("disk", detail, f"a push needs {2 * size / 1e6:.0f} MB for a moment: free some space")
        if free < 10 * size:
            return warn(
                "disk",
                detail,
                "backups will soon have no room: free some space or lower MEMBRIDGE_BACKUP_MAX_DISK_PERCENT",
            )
        return ok("disk", detail)

    async def _check_clock(self, deadline: Deadline) -> Check:
        server = await health.server_time(self._bus(), deadline=deadline)
        skew = abs((clock.now() - server).total_seconds())
        detail = f"{skew:.1f} s from the NATS server's"
        if skew > SKEW_FAIL:
            return fail("clock", detail, "set the clock (timedatectl set-ntp true): signatures will be refused")
        if skew > SKEW_WARN:
            return warn("clock", detail, "set the clock (timedatectl set-ntp true); leases do not depend on it")
        return ok("clock", detail)

    def _bus(self) -> Bus:
        if isinstance(self._reached.bus, MembridgeError):
            raise self._skipped(self._reached.bus)
        return self._reached.bus

    @staticmethod
    def _skipped(why: MembridgeError) -> MembridgeError:
        return _SkippedError(f"not checked: {why.message}")


def _refused(folders: Sequence[Path]) -> str:
    """Return what keeps this user from writing into one of the folders, or nothing."""
    for folder in folders:
        if folder.exists() and not os.access(folder, os.W_OK):
            read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
            return f"{folder}: {os.strerror(errno.EROFS if read_only else errno.EACCES)}"
    return ""


async def _line(name: str, check: Examination, deadline: Deadline) -> Check:
    try:
        async with deadline.scope(name):
            return await check(deadline)
    except _SkippedError as error:
        return Check(name=name, finding=Finding.SKIPPED, detail=error.message)
    except MembridgeError as error:
        return fail(name, error.message, error.remedy)
    except OSError as error:
        ours = meaning(error)
        return fail(name, ours.message, ours.remedy)


def _without_guesses(lines: dict[str, Check], over_nats: Iterable[str]) -> list[Check]:
    """Return the lines; one that failed only because NATS or the store is away reports that it was not checked."""
    skipped: dict[str, str] = {}
    if lines["nats"].finding is Finding.FAIL:
        skipped |= dict.fromkeys(over_nats, "NATS does not answer")
    if lines["object store"].finding is Finding.FAIL:
        skipped["encryption"] = "the object store does not answer"
    return [
        Check(name=name, finding=Finding.SKIPPED, detail=f"not checked: {skipped[name]}")
        if name in skipped and check.finding is Finding.FAIL
        else check
        for name, check in lines.items()
    ]


def _wal_bytes(path: Path) -> int:
    return _size(path.with_name(path.name + "-wal"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
