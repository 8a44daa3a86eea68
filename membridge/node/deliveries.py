"""Proposals as the work queue delivers them: decode one, or quarantine it and publish that."""

from membridge.aio import threads
from membridge.bus.streams import Delivery
from membridge.errors import MembridgeError
from membridge.snapshot.lane import Lane
from membridge.system.logging import get_logger
from schemas import subjects
from schemas.events import Quarantining
from schemas.proposal import ProposalAnnouncement
from schemas.wire import WireError, decode, encode

log = get_logger("membridge.project")


async def announcement_of(delivery: Delivery, lane: Lane) -> ProposalAnnouncement | None:
    """Decode a delivery; drop it from the queue when it is malformed or in another node's name."""
    message = delivery.message
    try:
        announcement = decode(message.body, ProposalAnnouncement)
    except WireError as error:
        log.warning("proposal dropped", subject=message.subject, reason=str(error))
        await delivery.term("no announcement")
        return None
    expected = subjects.fill(subjects.PROPOSAL, project=lane.project, node=announcement.node)
    if message.subject != expected:
        log.warning("proposal dropped", subject=message.subject, reason="another node's name")
        await delivery.term("not the sender's own")
        return None
    return announcement


async def set_aside(delivery: Delivery, announcement: ProposalAnnouncement, lane: Lane, error: MembridgeError) -> None:
    """Put a proposal that cannot be taken in into quarantine, and take it from the queue."""
    await threads.run(
        lane.journal.quarantine,
        "proposal",
        f"proposal {announcement.id} of {announcement.node}",
        error.message,
        encode(announcement),
    )
    await delivery.term("quarantined")
    await lane.announce(
        Quarantining(
            project=lane.project,
            node=lane.node,
            at=announcement.submitted_at,
            item=announcement.id,
            kind="proposal",
            reason=error.message,
        )
    )
