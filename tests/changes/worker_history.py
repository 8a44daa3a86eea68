"""Random histories of the real claude-mem worker: it writes by itself and as its own HTTP API is asked to.

What a look and an index find is held against everything as in the other histories. The worker writes unasked too, so a
difference counts only if nothing was written while the two were compared.
"""

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from membridge.claudemem.changes import ChangeWatcher
from tests.changes.history import History, LookHistory, MissedRowError
from tests.changes.index_history import IndexHistory
from tests.changes.writer import SIZES
from tests.real.worker import Worker, WorkerError, start_worker

#: Requests of one deed, most of which are few.
BATCHES = (1, 1, 1, 2, 5, 20)
#: Tries to compare while the worker writes nothing.
_TRIES = 20


class _WorkerDeeds(History):
    """What the worker is asked to do in place of the deeds of a writer."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._data = folder / ".claude-mem"
        self._data.mkdir()
        self._stack, self._worker = ExitStack(), list[Worker]()
        super().__init__(self._data, seed)
        self._home, self._number = folder, 0
        self._watcher = ChangeWatcher(self.path)
        self._epoch = 1_700_000_000_000

    def close(self) -> None:
        """End the worker."""
        self._end(lambda worker: worker.stop())
        self._watcher.close()
        super().close()

    def check(self) -> None:
        """Compare, again if the worker wrote meanwhile. Raises MissedRowError."""
        for _ in range(_TRIES):
            self._watcher.changed()
            try:
                super().check()
            except MissedRowError:
                if not self._watcher.changed():
                    raise
                self.ways["compared again"] += 1
            else:
                return
        self.ways["written all the time"] += 1

    def _do(self, deed: str) -> None:
        if deed == "reopen":
            self._end(lambda worker: worker.stop())
            self.ways["worker stopped"] += 1
            return
        worker = self._running()
        asking = threading.Thread(target=self._ask, args=(worker, self.dice.choice(BATCHES)))
        asking.start()
        try:
            if self.dice.random() < 0.02:
                # In the middle of whatever it does.
                self._end(lambda worker: worker.kill())
                self.ways["worker killed"] += 1
            elif self.dice.random() < 0.3:
                self.is_writing = True
                self.check()
                self.is_writing = False
        finally:
            asking.join()

    def _ask(self, worker: Worker, count: int) -> None:
        # One that is killed answers nothing.
        with suppress(WorkerError):
            for _ in range(count):
                self.dice.choice([self._save, self._save, self._bring, self._delete])(worker)

    def _save(self, worker: Worker) -> None:
        self._number += 1
        size = self.dice.choice(SIZES)
        worker.save(f"memory {self._number} " + f"{self.dice.getrandbits(40):010x}" * (size // 10), "p")

    def _bring(self, worker: Worker) -> None:
        """Import a session with what belongs to it."""
        self._number += 1
        number, text = self._number, f"{self.dice.getrandbits(40):010x}" * (self.dice.choice(SIZES) // 10)
        at, epoch = "2026-01-01T00:00:00.000Z", self._epoch + number
        session, memory = f"c{number}", f"m{number}"
        stamps = {"created_at": at, "created_at_epoch": epoch, "project": "p"}
        observation = {"memory_session_id": memory, "text": None, "type": "discovery", "subtitle": None, "facts": "[]"}
        observation |= {"concepts": "[]", "files_read": "[]", "files_modified": "[]", "prompt_number": 1}
        summary = {"memory_session_id": memory, "investigated": None, "completed": None, "next_steps": None}
        summary |= {"files_read": "[]", "files_edited": "[]", "notes": None, "prompt_number": 1}
        worker.bring(
            {
                "sessions": [
                    {"content_session_id": session, "memory_session_id": memory, "project": "p", "user_prompt": text}
                    | {"started_at": at, "started_at_epoch": epoch, "completed_at": None, "completed_at_epoch": None}
                    | {"status": "active"}
                ],
                "observations": [
                    {**observation, **stamps, "title": f"t{number}.{one}", "narrative": text}
                    for one in range(self.dice.choice(BATCHES))
                ],
                "summaries": [{**summary, **stamps, "request": text, "learned": text}],
                "prompts": [{**stamps, "content_session_id": session, "prompt_number": 1, "prompt_text": text}],
            }
        )

    def _delete(self, worker: Worker) -> None:
        """Delete rows that may be there, newest ones and old ones."""
        kind = self.dice.choice(["observation", "observation", "summary", "prompt"])
        for _ in range(self.dice.choice(BATCHES)):
            with suppress(WorkerError):
                worker.delete(kind, self.dice.randint(1, 400 + self._number))

    def _running(self) -> Worker:
        if not self._worker:
            self._worker.append(self._stack.enter_context(start_worker(self._home)))
        return self._worker[0]

    def _end(self, how: Callable[[Worker], None]) -> None:
        for worker in self._worker:
            how(worker)
        self._worker.clear()
        self._stack.close()


class WorkerLookHistory(_WorkerDeeds, LookHistory):
    """Looks at what the real worker writes."""


class WorkerIndexHistory(_WorkerDeeds, IndexHistory):
    """A node beside the real worker: it looks, pushes, pulls and audits."""
