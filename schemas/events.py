"""Facts that nodes publish, one struct a kind, told apart by `type`.

No part of Membridge depends on the arrival of an event. `decode_event` returns None for an unknown kind, never an
error.
"""

from enum import StrEnum
from functools import cache

import msgspec

from schemas.fields import Instant, Line, Sentence, Text, Whole
from schemas.identity import Epoch, Seq, WireNodeId, WireProjectId
from schemas.wire import MAX_BODY_BYTES


class EventBase(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every event has."""

    project: WireProjectId
    node: WireNodeId
    at: Instant


class SnapshotCommitted(EventBase, frozen=True, kw_only=True, tag="membridge.event.v1.snapshot_committed"):
    """A new head."""

    seq: Seq
    epoch: Epoch
    sha256: Line
    kind: Line
    rows: Whole = 0


class LeadershipChanged(EventBase, frozen=True, kw_only=True, tag="membridge.event.v1.leadership_changed"):
    """A lease was acquired, released or lost; `primary` is None when no node leads."""

    epoch: Epoch
    primary: WireNodeId | None = None
    reason: Text = ""
    issued_by: Sentence = ""


class ProposalSubmitted(EventBase, frozen=True, kw_only=True, tag="membridge.event.v1.proposal_submitted"):
    """A secondary offered rows."""

    proposal_id: Line
    rows: Whole


class ProposalMerged(EventBase, frozen=True, kw_only=True, tag="membridge.event.v1.proposal_merged"):
    """The primary merged a proposal."""

    proposal_id: Line
    inserted: Whole
    updated: Whole
    deleted: Whole
    conflicts: Whole


class Quarantining(EventBase, frozen=True, kw_only=True, tag="membridge.event.v1.quarantined"):
    """An item could not be merged and was quarantined."""

    item: Text
    kind: Line
    reason: Text


class Progress(EventBase, frozen=True, kw_only=True, tag="membridge.event.v1.progress"):
    """Progress of a job that takes more than a second; `total` is 0 while unknown."""

    job_id: Line
    kind: Line
    step: Line
    done: Whole = 0
    total: Whole = 0


class SessionMoment(StrEnum):
    """What happened to a session."""

    STARTED = "started"
    PROMPTED = "prompted"
    STOPPED = "stopped"
    ENDED = "ended"


class SessionEvent(EventBase, frozen=True, kw_only=True, tag="membridge.event.v1.session"):
    """A Claude Code session started, got a prompt, finished its answer or ended; `at` is when its hook ran.

    `id` is the same if an event is published twice. `source` says how a session started, `reason` why it ended, and
    `folder` where it runs. `prompt` is there only if the node's `hooks.include_prompts` is on.
    """

    id: Line
    session: Line
    moment: SessionMoment
    prompt_id: Line = ""
    source: Line = ""
    reason: Line = ""
    folder: Sentence = ""
    prompt: Text | None = None


Event = (
    SnapshotCommitted | LeadershipChanged | ProposalSubmitted | ProposalMerged | Quarantining | Progress | SessionEvent
)


def encode_event(event: Event) -> bytes:
    """Return the JSON of `event`."""
    return msgspec.json.encode(event)


def decode_event(body: bytes) -> Event | None:
    """Return the event in `body`, None when it is no event that this version knows."""
    if len(body) > MAX_BODY_BYTES:
        return None
    try:
        return _decoder().decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


@cache
def _decoder() -> msgspec.json.Decoder[Event]:
    # Made when it is needed: most nodes only publish events.
    return msgspec.json.Decoder(Event)
