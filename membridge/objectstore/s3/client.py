"""The daemon's side of an S3 store: the protocol, served by a short-lived child process.

The child starts with the first request (or `warm`) and ends some seconds after the last one. So a daemon is as small
after a push as before, and a crash in a transfer does not harm it. A request whose child dies fails; the next one
starts another child.
"""

import asyncio
import itertools
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from membridge.aio.deadline import Deadline
from membridge.aio.tasks import first_failure
from membridge.errors import StoreUnavailableError
from membridge.objectstore.protocol import (
    ObjectInfo,
    ObjectStore,
    Progress,
    StoreDescription,
    checked_body,
    checked_key,
    checked_prefix,
)
from membridge.objectstore.s3 import frames
from membridge.objectstore.s3.frames import Answer, Ask, S3Wire

#: Answers of one request that may wait; a listing has one for each page.
PENDING = 64
#: Seconds a child may take to end by itself.
STOP = 5.0
#: The variables of our environment that the child needs.
_KEPT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach a bucket, and how long an idle child is kept."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str
    region: str = "us-east-1"
    ca_file: Path | None = None
    linger_seconds: float = 15.0

    def wire(self) -> S3Wire:
        """Return the options as sent to the child."""
        return S3Wire(
            endpoint=self.endpoint,
            access_key=self.access_key,
            secret_key=self.secret_key,
            bucket=self.bucket,
            region=self.region,
            ca_file=str(self.ca_file) if self.ca_file else None,
        )


class Process(Protocol):
    """A transfer process, with asyncio's interface of a child."""

    @property
    def pid(self) -> int: ...
    @property
    def stdin(self) -> asyncio.StreamWriter | None: ...
    @property
    def stdout(self) -> asyncio.StreamReader | None: ...
    async def wait(self) -> int: ...
    def kill(self) -> None: ...


#: What starts a transfer process for a bucket.
Start = Callable[[S3Options], Awaitable[Process]]


async def start_process(options: S3Options) -> Process:
    """Start a transfer process."""
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    if options.endpoint.startswith("http:"):
        # aiohttp reads all certificates of the system when it is imported, which takes a fifth of the start.
        environment |= {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "membridge.objectstore.s3.child"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )


class _Child:
    """A running child: requests out, answers in."""

    def __init__(self, process: Process, stdin: asyncio.StreamWriter) -> None:
        self._process, self._stdin = process, stdin
        self.waiting: dict[int, asyncio.Queue[Answer]] = {}
        self.alive = True

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def send(self, message: Ask | S3Wire) -> None:
        """Send a frame; the pipe buffers it."""
        if self.alive:
            self._stdin.write(frames.packed(message))

    async def drain(self) -> None:
        """Wait until the pipe has taken what was sent."""
        try:
            await self._stdin.drain()
        except ConnectionError:
            self.alive = False

    async def receive(self, stdout: asyncio.StreamReader) -> None:
        """Pass answers to the waiting requests until the child ends; then end those that still wait."""
        try:
            while (answer := await frames.read(stdout, Answer)) is not None:
                queue = self.waiting.get(answer.id)
                if queue is not None:
                    await queue.put(answer)
        finally:
            self.alive = False
            for number, queue in self.waiting.items():
                if not queue.full():
                    queue.put_nowait(Answer(id=number, last=True, error="ended", message="the transfer process ended"))
            await self.stop()

    def close(self) -> None:
        """Let the child end once it has answered all requests."""
        self.alive = False
        self._stdin.close()

    async def stop(self) -> None:
        """End the child and wait for it."""
        self.close()
        try:
            async with asyncio.timeout(STOP):
                await self._process.wait()
        except TimeoutError:
            await self._kill()
        except asyncio.CancelledError:
            await self._kill()
            raise

    async def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class S3Store:
    """The store. Made by `open_s3`."""

    def __init__(self, options: S3Options, group: asyncio.TaskGroup, start: Start = start_process) -> None:
        self._options, self._group, self._start_process = options, group, start
        self._child: _Child | None = None
        self._starting = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._idle: asyncio.TimerHandle | None = None
        self._conditional: bool | None = None

    @property
    def child_pid(self) -> int | None:
        """The process id of the running child, None when there is none."""
        return self._child.pid if self._child is not None and self._child.alive else None

    async def put(self, key: str, body: bytes, *, if_absent: bool = True, deadline: Deadline) -> None:
        """Store a small body."""
        checked_body(checked_key(key), body)
        await self._one(Ask(id=0, verb="put", key=key, body=body, if_absent=if_absent), deadline=deadline)

    async def get(self, key: str, *, start: int = 0, length: int | None = None, deadline: Deadline) -> bytes:
        """Return an object's bytes."""
        ask = Ask(id=0, verb="get", key=checked_key(key), start=start, length=length)
        return (await self._one(ask, deadline=deadline)).body

    async def upload(
        self, key: str, source: Path, *, if_absent: bool = True, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        """Store a file."""
        ask = Ask(
            id=0,
            verb="upload",
            key=checked_key(key),
            path=frames.absolute(source),
            if_absent=if_absent,
            progress=progress is not None,
        )
        await self._one(ask, deadline=deadline, progress=progress)

    async def download(
        self, key: str, target: Path, *, start: int = 0, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        """Fetch an object into a file."""
        ask = Ask(
            id=0,
            verb="download",
            key=checked_key(key),
            path=frames.absolute(target),
            start=start,
            progress=progress is not None,
        )
        await self._one(ask, deadline=deadline, progress=progress)

    async def list(self, prefix: str, *, after: str = "", deadline: Deadline) -> AsyncGenerator[ObjectInfo]:
        """Yield objects in the order of their keys."""
        ask = Ask(id=0, verb="list", key=checked_prefix(prefix), after=after)
        async with aclosing(self._answers(ask, deadline=deadline)) as answers:
            async for answer in answers:
                for item in answer.items:
                    yield item

    async def delete(self, key: str, *, deadline: Deadline) -> None:
        """Delete an object."""
        await self._one(Ask(id=0, verb="delete", key=checked_key(key)), deadline=deadline)

    async def head(self, key: str, *, deadline: Deadline) -> ObjectInfo | None:
        """Return an object's facts, None when there is none."""
        answer = await self._one(Ask(id=0, verb="head", key=checked_key(key)), deadline=deadline)
        return answer.items[0] if answer.found else None

    async def share(self, key: str, *, seconds: int, deadline: Deadline) -> str | None:
        """Return a URL from which anybody can download an object for so long."""
        answer = await self._one(Ask(id=0, verb="share", key=checked_key(key), length=seconds), deadline=deadline)
        return answer.message

    async def describe(self, *, deadline: Deadline) -> StoreDescription:
        """Describe the store; the first call probes whether it honours conditions."""
        if self._conditional is None:
            self._conditional = (await self._one(Ask(id=0, verb="probe"), deadline=deadline)).found
        location = f"{self._options.endpoint} bucket {self._options.bucket}"
        return StoreDescription("s3", location, conditional_put=self._conditional)

    async def warm(self) -> None:
        """Start the child without waiting for it."""
        await self._running()
        # There may never be a request.
        self._linger()

    async def close(self) -> None:
        """End the child."""
        if self._idle is not None:
            self._idle.cancel()
        if self._child is not None:
            await self._child.stop()

    async def _one(self, ask: Ask, *, deadline: Deadline, progress: Progress | None = None) -> Answer:
        async for answer in self._answers(ask, deadline=deadline):
            if answer.last:
                return answer
            if progress is not None and answer.total:
                progress(answer.done, answer.total)
        raise StoreUnavailableError(f"{ask.verb} {ask.key}: the transfer process ended", remedy="try again")

    async def _answers(self, ask: Ask, *, deadline: Deadline) -> AsyncGenerator[Answer]:
        what = f"{ask.verb} {ask.key}".strip()
        async with deadline.scope(what):
            child = await self._running()
        number = next(self._numbers)
        queue: asyncio.Queue[Answer] = asyncio.Queue(PENDING)
        child.waiting[number] = queue
        ended = False
        try:
            child.send(_numbered(ask, number, deadline))
            await child.drain()
            while not ended:
                # A little longer than the child's own deadline: its error says more than this one.
                async with Deadline(deadline.at + 1.0).scope(what):
                    answer = await queue.get()
                ended = answer.last
                if answer.error:
                    raise self._failure(answer, what)
                yield answer
        finally:
            del child.waiting[number]
            if not ended:
                child.send(Ask(id=number, verb="cancel"))
            self._linger()

    def _failure(self, answer: Answer, what: str) -> Exception:
        if answer.error == "ended":
            return StoreUnavailableError(f"{what}: {answer.message}", remedy="try again")
        return frames.raised(answer)

    async def _running(self) -> _Child:
        async with self._starting:
            if self._idle is not None:
                self._idle.cancel()
                self._idle = None
            if self._child is None or not self._child.alive:
                self._child = await self._start()
            return self._child

    async def _start(self) -> _Child:
        process = await self._start_process(self._options)
        if process.stdin is None or process.stdout is None:
            raise StoreUnavailableError("the transfer process was started without pipes")
        child = _Child(process, process.stdin)
        child.send(self._options.wire())
        self._group.create_task(child.receive(process.stdout), name="s3 transfer")
        return child

    def _linger(self) -> None:
        child = self._child
        if child is None or child.waiting:
            return
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(self._options.linger_seconds, child.close)


def _numbered(ask: Ask, number: int, deadline: Deadline) -> Ask:
    return msgspec.structs.replace(ask, id=number, seconds=deadline.remaining())


@asynccontextmanager
async def open_s3(options: S3Options, *, start: Start = start_process) -> AsyncGenerator[ObjectStore]:
    """Open the bucket; the child starts with the first request, by `start`."""
    with first_failure():
        async with asyncio.TaskGroup() as group:
            store = S3Store(options, group, start)
            try:
                yield store
            finally:
                await store.close()
