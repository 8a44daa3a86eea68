"""What was set aside: list it, try it again, or drop it."""

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.commits.progress import ProgressTracker
from membridge.errors import InvalidRequestError, NotFoundError
from membridge.node.jobs import Jobs, JobSpec
from membridge.node.project import Project
from schemas.proposal import ProposalAnnouncement, QuarantineAction, Quarantined, QuarantineReply
from schemas.snapshot import PullReply
from schemas.wire import decode


async def act_on_quarantine(
    project: Project, jobs: Jobs, request: QuarantineAction, *, by: str, deadline: Deadline
) -> QuarantineReply:
    """Do what `request` says and return the items it concerned.

    A proposal that is tried again is merged and committed without the shrink bound: a person looked at it. A row comes
    back by itself with the next pull once it fits; trying it again means dropping the note.
    Errors: InvalidRequestError without an id, NotFoundError for one that is not there, and what the merge raises.
    """
    journal = project.lane.journal
    items = await threads.run(journal.quarantined)
    if request.action == "list":
        return QuarantineReply(items=items)
    item = _chosen(items, request)
    if request.action == "retry" and item.kind == "proposal":
        announcement = decode(await threads.run(journal.payload, item.id), ProposalAnnouncement)

        async def act(progress: ProgressTracker, job: str) -> PullReply:
            del job
            return await project.take_in_set_aside(announcement, progress, deadline=deadline)

        await jobs.run(JobSpec("quarantine", by), act)
    await threads.run(journal.drop, item.id)
    return QuarantineReply(items=[item])


def _chosen(items: list[Quarantined], request: QuarantineAction) -> Quarantined:
    if request.id is None:
        raise InvalidRequestError(f"{request.action} needs the id of an item", field="id")
    for item in items:
        if item.id == request.id:
            return item
    raise NotFoundError(f"nothing with id {request.id} is in quarantine", remedy="run `membridge quarantine`")
