"""`/api/projects`: the history, conflicts, backups and jobs of a project, asked of its primary or of a node by name.

Each route is one operation of a node: its request is the operation's with the project and the node beside it.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial

from membridge.aio.deadline import Deadline
from membridge.errors import CorruptObjectError
from schemas import subjects
from schemas.commits import (
    DiffReply,
    ExtractReply,
    HistoryReply,
    ReadExtractedReply,
    ReadExtractedRequest,
    RestoreBackupReply,
    RestoreReply,
    TagsReply,
)
from schemas.errors import ErrorCode
from schemas.gateway import (
    MOST_BODY,
    ActOnQuarantine,
    ActOnTags,
    DiffSnapshots,
    DownloadState,
    ExtractSnapshot,
    ForgetMemories,
    JobOfProject,
    ListMemories,
    ListSnapshots,
    ListUnsynced,
    OneMemory,
    OnNode,
    PullNow,
    PushNow,
    RestoreFromBackup,
    RestoreSnapshot,
)
from schemas.memories import ForgetReply, MemoriesReply, MemoryReply
from schemas.node import DoctorReply, Job, JobsReply, StatusReply
from schemas.proposal import ConflictsReply, QuarantineReply, UnsyncedReply
from schemas.snapshot import BackupsReply, PullReply, PushReply
from schemas.subjects import Operation
from schemas.wire import Wire
from services.gateway.callers import READ_MEMORY, WRITE_MEMORY
from services.gateway.projects import Projects
from services.web.downloads import Download
from services.web.routes import AnyRoute, Call, Endpoint, Kind, Method, Route, Text

GET, POST = Method.GET, Method.POST
_AT = "/api/projects/{cid}"
#: What a node may answer to any request about its memory, and to one that changes it.
READS = (ErrorCode.NOT_FOUND, ErrorCode.DATABASE_INVALID, ErrorCode.CORRUPT_OBJECT, ErrorCode.FORBIDDEN)
WRITES = (*READS, ErrorCode.CONFLICT, ErrorCode.DISK_FULL)
#: Seconds that work on a memory may take, and a look at it.
LONG, SHORT = 600.0, 30.0

STATUS = Route(
    "project_status",
    GET,
    f"{_AT}/status",
    OnNode,
    StatusReply,
    "How a node sees the project.",
    READ_MEMORY,
    errors=READS,
)
DOCTOR = Route(
    "project_doctor", GET, f"{_AT}/doctor", OnNode, DoctorReply, "What a node's doctor finds.", READ_MEMORY,
    deadline=60.0, errors=READS,
)  # fmt: skip
SNAPSHOTS = Route(
    "snapshots", GET, f"{_AT}/snapshots", ListSnapshots, HistoryReply, "Snapshots, newest first.", READ_MEMORY,
    deadline=SHORT, errors=READS,
)  # fmt: skip
DIFF = Route(
    "diff", GET, f"{_AT}/diff", DiffSnapshots, DiffReply, "Which rows differ between two states.", READ_MEMORY,
    deadline=LONG, errors=WRITES,
)  # fmt: skip
RESTORE = Route(
    "restore", POST, f"{_AT}/restore", RestoreSnapshot, RestoreReply,
    "Restore a state as the memory; without `apply` say what would change.", WRITE_MEMORY, deadline=LONG, errors=WRITES,
)  # fmt: skip
EXTRACT = Route(
    "extract", POST, f"{_AT}/extract", ExtractSnapshot, ExtractReply,
    "Write a state to a database file on a node's machine; it is deleted after a day.", WRITE_MEMORY, deadline=LONG,
    errors=WRITES,
)  # fmt: skip
DOWNLOAD = Route(
    "download_state", GET, f"{_AT}/extracted/{{name}}", DownloadState, Text,
    "The file of a state that `extract` made, as it is on its node.", WRITE_MEMORY, kind=Kind.FILE,
    content_type="application/vnd.sqlite3", errors=READS,
)  # fmt: skip
TAGS = Route(
    "tags", POST, f"{_AT}/tags", ActOnTags, TagsReply, "List, set or delete tags.", WRITE_MEMORY, deadline=120.0,
    errors=WRITES,
)  # fmt: skip
CONFLICTS = Route(
    "conflicts", GET, f"{_AT}/conflicts", OnNode, ConflictsReply, "Rows that two nodes changed differently.",
    READ_MEMORY, errors=READS,
)  # fmt: skip
QUARANTINE = Route(
    "quarantine", POST, f"{_AT}/quarantine", ActOnQuarantine, QuarantineReply,
    "List, retry or drop what a node could not merge.", WRITE_MEMORY, deadline=120.0, errors=WRITES,
)  # fmt: skip
UNSYNCED = Route(
    "unsynced", GET, f"{_AT}/unsynced", ListUnsynced, UnsyncedReply,
    "Which rows of a node the canonical memory lacks, and why.", READ_MEMORY, deadline=60.0, errors=READS,
)  # fmt: skip
BACKUPS = Route(
    "backups", GET, f"{_AT}/backups", OnNode, BackupsReply, "Backups of a node's database, newest first.", READ_MEMORY,
    errors=READS,
)  # fmt: skip
RESTORE_BACKUP = Route(
    "restore_backup", POST, f"{_AT}/backups/restore", RestoreFromBackup, RestoreBackupReply,
    "Restore a node's database from a backup; without `apply` say what would change.", WRITE_MEMORY, deadline=LONG,
    errors=WRITES,
)  # fmt: skip
PUSH = Route(
    "push", POST, f"{_AT}/push", PushNow, PushReply, "Push a node's memory now.", WRITE_MEMORY, deadline=LONG,
    errors=WRITES,
)  # fmt: skip
PULL = Route(
    "pull", POST, f"{_AT}/pull", PullNow, PullReply, "Pull into a node's memory now.", WRITE_MEMORY, deadline=LONG,
    errors=WRITES,
)  # fmt: skip
JOBS = Route("project_jobs", GET, f"{_AT}/jobs", OnNode, JobsReply, "Jobs, newest first.", READ_MEMORY, errors=READS)
JOB = Route("project_job", GET, f"{_AT}/jobs/{{id}}", JobOfProject, Job, "A job.", READ_MEMORY, errors=READS)

MEMORIES = Route(
    "memories", GET, f"{_AT}/memories", ListMemories, MemoriesReply, "Memories, newest first: by words and filters.",
    READ_MEMORY, deadline=SHORT, errors=READS,
)  # fmt: skip
MEMORY = Route("memory", GET, f"{_AT}/memories/{{ref}}", OneMemory, MemoryReply, "A memory.", READ_MEMORY, errors=READS)
FORGET = Route(
    "forget", POST, f"{_AT}/forget", ForgetMemories, ForgetReply,
    "Forget memories on every machine; without `apply` say which.", WRITE_MEMORY, deadline=LONG, most_bytes=MOST_BODY,
    errors=WRITES,
)  # fmt: skip

RELAYED: tuple[tuple[AnyRoute, Operation[Wire, Wire]], ...] = (
    (STATUS, subjects.STATUS),
    (DOCTOR, subjects.DOCTOR),
    (SNAPSHOTS, subjects.HISTORY),
    (DIFF, subjects.DIFF),
    (RESTORE, subjects.RESTORE),
    (EXTRACT, subjects.EXTRACT),
    (UNSYNCED, subjects.UNSYNCED),
    (TAGS, subjects.TAG),
    (CONFLICTS, subjects.CONFLICTS),
    (QUARANTINE, subjects.QUARANTINE),
    (BACKUPS, subjects.BACKUPS),
    (RESTORE_BACKUP, subjects.RESTORE_BACKUP),
    (PUSH, subjects.PUSH),
    (PULL, subjects.PULL),
    (MEMORIES, subjects.MEMORIES),
    (MEMORY, subjects.MEMORY),
    (FORGET, subjects.FORGET),
    (JOBS, subjects.JOBS),
    (JOB, subjects.JOB_BY_ID),
)


def endpoints(projects: Projects) -> list[Endpoint]:
    """Return the endpoints of projects."""
    return [
        DOWNLOAD.download(partial(_download, projects)),
        *(_relayed(projects, route, operation) for route, operation in RELAYED),
    ]


async def _download(projects: Projects, request: DownloadState, call: Call) -> Download:
    project = projects.checked(request.cid)

    async def read(offset: int) -> ReadExtractedReply:
        asked = ReadExtractedRequest(name=request.name, offset=offset)
        return await projects.ask(project, subjects.READ_EXTRACTED, asked, node=request.node, call=call)

    first = await read(0)
    return Download(request.name, first.size_bytes, _parts(first, read, call))


async def _parts(
    first: ReadExtractedReply, read: Callable[[int], Awaitable[ReadExtractedReply]], call: Call
) -> AsyncGenerator[bytes]:
    """Yield the parts of a file, each asked for once the one before is on its way."""
    reply, offset = first, 0
    while reply.body:
        yield reply.body
        offset += len(reply.body)
        if offset >= first.size_bytes:
            return
        call.deadline = Deadline.after(subjects.READ_EXTRACTED.deadline)
        reply = await read(offset)
    if offset < first.size_bytes:
        raise CorruptObjectError("the file became shorter while it was read")


def _relayed(projects: Projects, route: AnyRoute, operation: Operation[Wire, Wire]) -> Endpoint:
    names = operation.request.__struct_fields__

    async def answer(request: Wire, call: Call) -> Wire:
        cid, node = getattr(request, "cid"), getattr(request, "node")  # noqa: B009 - the fields of every such request
        project = projects.checked(cid)
        asked = operation.request(**{name: getattr(request, name) for name in names})
        return await projects.ask(project, operation, asked, node=node, call=call)

    return route.bind(answer)
