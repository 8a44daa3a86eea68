"""A file of the spool as an event: its first line, then the hook's JSON as it came, which may be cut.

Pure: takes bytes and returns the event, or raises DamagedEventError.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from membridge.hooks.paths import MOST_BYTES, SIGNATURE
from schemas.events import SessionEvent, SessionMoment
from schemas.identity import NodeId, ProjectId
from schemas.wire import shortened, storable

#: Hooks that make an event, and what it says.
MOMENTS: Mapping[str, SessionMoment] = {
    "SessionStart": SessionMoment.STARTED,
    "UserPromptSubmit": SessionMoment.PROMPTED,
    "Stop": SessionMoment.STOPPED,
    "SessionEnd": SessionMoment.ENDED,
}
#: Characters of a name in an event, and of a path.
_LINE, _PATH = 256, 4_096
#: Characters of an escape in JSON: as many may have to be cut off before a cut text is complete.
_ESCAPE = 12


class DamagedEventError(ValueError):
    """A file that is not an event; the message says why."""


@dataclass(frozen=True, slots=True)
class HookEvent:
    """What a hook reported: the project as the hook names it, None if it does not, and the texts of its JSON."""

    moment: SessionMoment
    project: str | None
    texts: Mapping[str, str]
    body_sha256: str

    @property
    def folder(self) -> str:
        """Where the session runs."""
        return self.texts.get("cwd", "")

    def identity(self, project: ProjectId, secret: bytes) -> str:
        """Return the id of the event: the same for each report of the same event, and not to be guessed.

        Two hooks of one machine report one event alike. A prompt id tells the events of a session apart. Where Claude
        Code gives none, the whole JSON does.
        """
        parts = (
            project,
            self.texts["session_id"],
            self.moment.value,
            self.texts.get("prompt_id") or self.body_sha256,
            self.texts.get("source", ""),
            self.texts.get("reason", ""),
            self.texts.get("stop_hook_active", ""),
        )
        return hashlib.blake2b(json.dumps(parts).encode(), key=secret, digest_size=16).hexdigest()

    def told(self, *, project: ProjectId, node: NodeId, at: str, secret: bytes, include_prompt: bool) -> SessionEvent:
        """Return the event as it is published."""
        texts = self.texts
        return SessionEvent(
            project=project,
            node=node,
            at=at,
            id=self.identity(project, secret),
            session=shortened(texts["session_id"], _LINE),
            moment=self.moment,
            prompt_id=shortened(texts.get("prompt_id", ""), _LINE),
            source=shortened(texts.get("source", ""), _LINE),
            reason=shortened(texts.get("reason", ""), _LINE),
            folder=shortened(self.folder, _PATH),
            prompt=texts.get("prompt") if include_prompt else None,
        )


def parse(content: bytes) -> HookEvent:
    """Return the event in a file. Raises DamagedEventError."""
    line, _, body = content[:MOST_BYTES].partition(b"\n")
    words = line.decode("utf-8", "replace").split(" ", 3)
    if " ".join(words[:2]) != SIGNATURE or len(words) < 4:
        raise DamagedEventError(f"its first line is not `{SIGNATURE} EVENT PROJECT`")
    moment, project = MOMENTS.get(words[2]), storable(words[3].strip())
    if moment is None:
        raise DamagedEventError(f"its event {words[2][:64]!r} is not one that is published")
    texts = texts_of(body.decode("utf-8", "replace"))
    if not texts.get("session_id"):
        raise DamagedEventError("it names no session")
    return HookEvent(moment, None if project == "-" else project, texts, hashlib.sha256(body).hexdigest())


def texts_of(body: str) -> dict[str, str]:
    """Return the texts and flags of a JSON object, as far as it goes: of a cut one those that come before the cut."""
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError):
        found = _beginning(body)
    if not isinstance(found, dict):
        return {}
    fields = cast("dict[str, object]", found)
    return {
        name: storable(value) if isinstance(value, str) else str(value).lower()
        for name, value in fields.items()
        if isinstance(value, str | bool)
    }


def _beginning(body: str) -> dict[str, object]:
    decoder, found = json.JSONDecoder(), dict[str, object]()
    at = _after(body, 0, "{")
    while at:
        name: object = None
        try:
            name, begin = decoder.raw_decode(body, at)
            begin = _after(body, begin, ":")
            found[str(name)], end = decoder.raw_decode(body, begin)
        except (ValueError, RecursionError):
            # Only a prompt is of use without its end.
            if name == "prompt" and (text := _cut_text(body, at)) is not None:
                found["prompt"] = text
            break
        at = _after(body, end, ",")
    return found


def _after(body: str, at: int, mark: str) -> int:
    """Return where what follows `mark` begins, 0 if it is not the next thing."""
    rest = body[at:].lstrip(" \t\r\n")
    if not rest.startswith(mark):
        return 0
    return len(body) - len(rest[1:].lstrip(" \t\r\n"))


def _cut_text(body: str, at: int) -> str | None:
    """Return the text whose beginning ends `body`, after its name at `at`; None if there is none."""
    _, quote, rest = body[at:].partition(":")[2].partition('"')
    for cut in range(_ESCAPE if quote else 0):
        try:
            return str(json.loads(f'"{rest[: len(rest) - cut]}"'))
        except ValueError:
            continue
    return None
