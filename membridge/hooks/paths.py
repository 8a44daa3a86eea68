"""Where the hooks and the daemon meet: the spool of events, questions and answers of session starts, the heartbeat.

Every path follows from the state folder alone. So the installer writes the same paths into the plugin that the daemon
uses, whatever environment each was started in. `run` is a link that the daemon sets to a folder in memory.
"""

from dataclasses import dataclass
from pathlib import Path

from membridge.system import files

#: Seconds between two beats of the heartbeat, and the age from which the daemon counts as hung or gone.
BEAT_EVERY, BEAT_STALE = 2.0, 6.0
#: Files that wait in the spool at most: a hook that finds as many drops its event.
MOST_FILES = 10_000
#: Bytes of a hook's JSON that a file of the spool holds at most.
MOST_BODY_BYTES = 64 << 10
#: Bytes of its first line at most, and so of a file; a question of a session start has the same form.
MOST_LINE_BYTES = 1_024
MOST_BYTES = MOST_LINE_BYTES + MOST_BODY_BYTES
#: First words of a file of the spool: `membridge 1 <EventName> <project or ->`, then a newline and the hook's JSON.
SIGNATURE = "membridge 1"


@dataclass(frozen=True, slots=True)
class HookPaths:
    """The places of one state folder."""

    spool: Path

    @property
    def incoming(self) -> Path:
        """Where a hook writes an event under a temporary name."""
        return self.spool / "tmp"

    @property
    def new(self) -> Path:
        """Where a hook moves a complete event; a file here is one event."""
        return self.spool / "new"

    @property
    def damaged(self) -> Path:
        """Where the daemon keeps files that it could not read as an event."""
        return self.spool / "damaged"

    @property
    def secret(self) -> Path:
        """What the ids of events are made with, so that no other machine can guess them."""
        return self.spool / "secret"

    @property
    def dropped(self) -> Path:
        """How many events were dropped, because too many waited."""
        return self.spool / "dropped"

    @property
    def run(self) -> Path:
        """The folder of questions, answers and heartbeat: a link to one in memory, or itself."""
        return self.spool.parent / "run"

    @property
    def questions(self) -> Path:
        """Where a session start asks: a file here is one question."""
        return self.run / "questions"

    @property
    def answers(self) -> Path:
        """Where the daemon answers: under the name of the question, with what the hook prints."""
        return self.run / "answers"

    @property
    def heartbeat(self) -> Path:
        """A file whose modification time the daemon renews while it lives."""
        return self.run / "hooks.heartbeat"


def hook_paths(state: Path) -> HookPaths:
    """Return the places of the state folder `state` (`settings.node.state_dir`)."""
    return HookPaths(state / "spool")


def make_spool(paths: HookPaths) -> None:
    """Make the spool's folders, for their owner only. Idempotent. Blocking.

    Errors: DiskFullError, FileAccessError.
    """
    with files.translated(paths.spool):
        paths.spool.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (paths.spool, paths.incoming, paths.new):
            folder.mkdir(mode=0o700, exist_ok=True)
