"""How a session start asks the daemon: by a file, and a file answers it, so that no hook waits on what can hang.

A question is a file in `questions` of the form of the spool's, with a newline at its end. The file of the same name in
`answers` is what the hook prints. A heartbeat beside them tells whether a daemon is there to answer.
What is asked is worked out by `session_answer`, which is loaded with the first question.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from membridge.aio import threads
from membridge.hooks import hook_file
from membridge.hooks.folder_watch import FolderWatch
from membridge.hooks.paths import BEAT_EVERY, MOST_BYTES, HookPaths
from membridge.hooks.run_folder import close_run_folder, open_run_folder
from membridge.system import clock, files

#: Questions that are worked on at once; more stay in their folder.
AT_ONCE = 128
#: Seconds after which nobody waits for an answer any more: the longest wait is nine.
FORGOTTEN = 10.0
#: Seconds between two looks at a question that is being written. A hook renames a complete one; the module cannot.
AGAIN = 0.01

#: Answers what a question says with what the hook prints, in a task of the group; calls the last argument when nothing
#: of the work is left.
Asked = Callable[[bytes, asyncio.TaskGroup, Callable[[], None]], Awaitable[bytes]]


async def serve(paths: HookPaths, environ: Mapping[str, str], asked: Asked) -> None:
    """Answer questions and beat until cancelled.

    Errors: FileAccessError, also when the folder was removed; DiskFullError.
    """
    folder = await threads.run(open_run_folder, paths, environ)
    mailbox = _Mailbox(paths, folder)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_beat(mailbox), name="heartbeat")
            await _answer_all(mailbox, group, asked)
    finally:
        await threads.run(close_run_folder, paths, folder)


@dataclass(frozen=True, slots=True)
class _Question:
    name: str
    content: bytes


class _Mailbox:
    """The folder of questions, that of answers, and the heartbeat."""

    def __init__(self, paths: HookPaths, folder: Path) -> None:
        self.questions, self._answers = folder / paths.questions.name, folder / paths.answers.name
        self._heartbeat = folder / paths.heartbeat.name
        #: When each answer was given that may still be there, oldest first.
        self._given = deque[tuple[float, Path]]()

    def take(self) -> tuple[list[_Question], bool]:
        """Take the questions that are complete; return whether one is still being written. Raises FileAccessError."""
        found, unfinished = list[_Question](), False
        with files.translated(self.questions):
            paths = sorted(self.questions.iterdir())
        for path in paths:
            try:
                if clock.now().timestamp() - path.lstat().st_mtime > FORGOTTEN:
                    files.remove(path)
                    continue
                content = hook_file.read(path, MOST_BYTES)
            except OSError:
                # Its hook has given up.
                continue
            if path.name.startswith("."):
                continue
            if content.endswith(b"\n") or len(content) == MOST_BYTES:
                files.discard(path)
                found.append(_Question(path.name, content))
            else:
                unfinished = True
        return found, unfinished

    def give(self, question: _Question, answer: bytes) -> None:
        """Put an answer where its hook finds it, whole. Errors: DiskFullError, FileAccessError."""
        path = self._answers / question.name
        part = path.with_name(f".{path.name}")
        with files.translated(path):
            part.write_bytes(answer)
            part.replace(path)
        self._given.append((monotonic(), path))

    def beat(self) -> None:
        """Renew the heartbeat. Errors: FileAccessError, DiskFullError."""
        with files.translated(self._heartbeat):
            self._heartbeat.touch(mode=0o600)

    def clear(self) -> None:
        """Remove answers that nobody waits for any more. Raises FileAccessError when a folder is not there."""
        for folder in (self.questions, self._answers):
            with files.translated(folder):
                folder.lstat()
        while self._given and self._given[0][0] + FORGOTTEN < monotonic():
            files.discard(self._given.popleft()[1])


async def _beat(mailbox: _Mailbox) -> None:
    # In the event loop, not in a thread: it has to stop when the loop does.
    while True:
        mailbox.clear()
        mailbox.beat()
        await asyncio.sleep(BEAT_EVERY)


async def _answer_all(mailbox: _Mailbox, group: asyncio.TaskGroup, asked: Asked) -> None:
    watch, free = FolderWatch(mailbox.questions), asyncio.Semaphore(AT_ONCE)

    async def answer(question: _Question) -> None:
        answer = await asked(question.content, group, free.release)
        mailbox.give(question, answer)

    try:
        while True:
            # Not by a thread: those of the pool may all be at work, or hang.
            questions, unfinished = mailbox.take()
            for question in questions:
                await free.acquire()
                group.create_task(answer(question), name="session start")
            if unfinished:
                await asyncio.sleep(AGAIN)
            elif not questions:
                await watch.come()
    finally:
        watch.close()
