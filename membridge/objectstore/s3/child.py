"""The transfer child: `python -m membridge.objectstore.s3.child`, with requests on its standard input.

It loads botocore, so that the daemon need not. It ends when its input ends: with the daemon, or when the daemon closes
it after some idle seconds. Handles several requests at once, and their cancellation.
"""

import asyncio
import os
import sys
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.errors import MembridgeError, StoreUnavailableError
from membridge.objectstore.protocol import Progress
from membridge.objectstore.s3 import frames
from membridge.objectstore.s3.frames import Answer, Ask, S3Wire
from membridge.objectstore.s3.store import S3, open_client
from membridge.system import files

#: Requests at once.
AT_ONCE = 8
#: Bytes between two reports of progress.
PROGRESS_EVERY = 4 << 20


class _Child:
    def __init__(self, store: S3, writer: asyncio.StreamWriter) -> None:
        self._store, self._writer = store, writer
        self._free = asyncio.Semaphore(AT_ONCE)
        self._running: dict[int, asyncio.Task[None]] = {}

    async def serve(self, reader: asyncio.StreamReader) -> None:
        async with asyncio.TaskGroup() as group:
            while (ask := await frames.read(reader, Ask)) is not None:
                if ask.verb == "cancel":
                    if (task := self._running.get(ask.id)) is not None:
                        task.cancel()
                    continue
                task = group.create_task(self._answer(ask))
                self._running[ask.id] = task
                task.add_done_callback(lambda _, number=ask.id: self._running.pop(number, None))
            for task in list(self._running.values()):
                task.cancel()

    async def _answer(self, ask: Ask) -> None:
        try:
            async with self._free:
                answer = await self._do(ask)
        except MembridgeError as error:
            answer = frames.refusal(ask.id, error)
        except OSError as error:
            answer = frames.refusal(
                ask.id, files.meaning(error, Path(ask.path or ask.key), otherwise=StoreUnavailableError)
            )
        except Exception as error:  # noqa: BLE001 - the daemon decides what to make of it; the child serves on
            answer = frames.refusal(ask.id, StoreUnavailableError(f"{ask.verb} {ask.key}: {type(error).__name__}"))
        await self._send(answer)

    async def _do(self, ask: Ask) -> Answer:  # noqa: C901 - one branch for each verb
        store, deadline, number = self._store, Deadline.after(ask.seconds), ask.id
        if ask.verb == "put":
            await store.put(ask.key, ask.body, if_absent=ask.if_absent, deadline=deadline)
        elif ask.verb == "get":
            body = await store.get(ask.key, start=ask.start, length=ask.length, deadline=deadline)
            return Answer(id=number, last=True, body=body)
        elif ask.verb == "upload":
            await store.upload(
                ask.key, Path(ask.path), if_absent=ask.if_absent, deadline=deadline, progress=self._teller(ask)
            )
        elif ask.verb == "download":
            await store.download(
                ask.key, Path(ask.path), start=ask.start, deadline=deadline, progress=self._teller(ask)
            )
        elif ask.verb == "list":
            async for items in store.pages(ask.key, after=ask.after, deadline=deadline):
                await self._send(Answer(id=number, items=items))
        elif ask.verb == "delete":
            await store.delete(ask.key, deadline=deadline)
        elif ask.verb == "head":
            info = await store.head(ask.key, deadline=deadline)
            return Answer(id=number, last=True, found=info is not None, items=[info] if info else [])
        elif ask.verb == "share":
            return Answer(id=number, last=True, message=await store.share(ask.key, seconds=ask.length or 60))
        elif ask.verb == "probe":
            return Answer(id=number, last=True, found=await store.honours_conditions(deadline=deadline))
        return Answer(id=number, last=True)

    def _teller(self, ask: Ask) -> Progress:
        reported = 0

        def tell(done: int, total: int) -> None:
            nonlocal reported
            if ask.progress and (done - reported >= PROGRESS_EVERY or done == total):
                reported = done
                self._writer.write(frames.packed(Answer(id=ask.id, done=done, total=total)))

        return tell

    async def _send(self, answer: Answer) -> None:
        self._writer.write(frames.packed(answer))
        await self._writer.drain()


async def main() -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    wire = await frames.read(reader, S3Wire)
    if wire is None:
        return
    async with open_client(wire) as store:
        await _Child(store, writer).serve(reader)


def run() -> None:
    """Run the transfer process, without the user's AWS profile and endpoint."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ |= {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    asyncio.run(main())


if __name__ == "__main__":
    run()
