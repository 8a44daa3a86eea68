"""What each kind of user may publish and subscribe to, made from the catalogue in `schemas`.

Pure. These lists separate the nodes inside one project's account. Projects have accounts of their own, because a
permission does not cover the reply subject of a request: a user that may store something and read it back can have the
server write it anywhere in the same account.
"""

from membridge.wiring.nats_permissions import ANSWERS, DISCOVERY, INBOX, Permissions
from schemas import buckets, streams, subjects
from schemas.claude_config import CLAUDE_CONFIG
from schemas.identity import NodeId, ProjectId

#: The buckets that any node of a project may write: to lead or become the leader, and to share its configuration.
SHARED = (
    buckets.HEADS, buckets.LEADERSHIP, buckets.EPOCHS, buckets.SETTINGS, buckets.PUSH_LEASES, CLAUDE_CONFIG,
)  # fmt: skip
#: The buckets of the object store in NATS: that of snapshots in a project's account, that of outputs in the services'.
OBJECTS, ARTIFACTS = "membridge", "membridge-artifacts"


def node(project: ProjectId, name: NodeId) -> Permissions:
    """Return what a node may do in the account of one of its projects."""
    tokens = {"project": project, "node": name}
    keys = [f"$KV.{bucket.name}.{project}" for bucket in SHARED]
    own_presence = f"$KV.{buckets.NODES.name}.{name}"
    consumer = f"{streams.PROPOSALS.name}.proposals-{project}"
    requests = (
        *(operation.at(**tokens) for operation in subjects.NODE_OPERATIONS),
        *_of_primary(project),
        *(operation.at(project=project) for operation in subjects.LEADERSHIP_OPERATIONS),
        *(operation.at(node=name) for operation in subjects.DAEMON_OPERATIONS),
    )
    publish = (
        *requests,
        ANSWERS,
        subjects.STORE_CONFIG.at(project=project),
        *keys,
        own_presence,
        subjects.EVENT.format(kind="*", **tokens),
        subjects.fill(subjects.PROGRESS, **tokens),
        subjects.fill(subjects.PROPOSAL, **tokens),
        subjects.JOB.format(job="*", **tokens),
        f"$O.{OBJECTS}.C.*",
        f"$O.{OBJECTS}.M.*",
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.*",
        # Reading: the account holds only this project.
        "$JS.API.DIRECT.GET.>",
        f"$JS.API.CONSUMER.INFO.{consumer}",
        f"$JS.API.CONSUMER.MSG.NEXT.{consumer}",
        # The subject of acknowledgements up to 2.14; since 2.15 it begins with domain and account.
        f"$JS.ACK.{consumer}.>",
        f"$JS.ACK.*.*.{consumer}.>",
    )
    subscribe = (
        f"{INBOX}.{name}.>",
        *requests,
        # Subscribed only: no user but the server's own may publish a revocation.
        subjects.REVOKED.at(node=name),
        *keys,
        own_presence,
        subjects.EVENT.format(project=project, kind="*", node="*"),
        subjects.PROGRESS.format(project=project, node="*"),
        *DISCOVERY,
    )
    return Permissions(publish, subscribe)


def reader(project: ProjectId, name: str) -> Permissions:
    """Return what a read-only front end may do: follow events, and send requests that change nothing."""
    asked = [operation.to_primary().at(project=project) for operation in _READING]
    return Permissions(
        publish=(*asked, *(one.at(project=project) for one in (subjects.LEADERSHIP_GET, subjects.NODES))),
        subscribe=(
            f"{INBOX}.{name}.>",
            subjects.EVENT.format(project=project, kind="*", node="*"),
            subjects.PROGRESS.format(project=project, node="*"),
        ),
    )


def gateway(project: ProjectId, name: str) -> Permissions:
    """Return what the gateway may do in a project: what a reader may, and the requests of its users.

    Those go to the primary or to a node by its name, also to its daemon.
    """
    looks = reader(project, name)
    chosen = [operation.at(project=project) for operation in subjects.LEADERSHIP_OPERATIONS]
    on_nodes = [operation.subject.format(project=project, node="*") for operation in subjects.NODE_OPERATIONS]
    daemons = [operation.pattern() for operation in subjects.DAEMON_OPERATIONS]
    return Permissions(
        publish=(*_of_primary(project), *on_nodes, *daemons, *chosen, *DISCOVERY), subscribe=looks.subscribe
    )


def service(project: ProjectId, name: str) -> Permissions:
    """Return what a service that asks the nodes of each project may do there: what a gateway may, and read.

    It reads which nodes are present, which one leads, how the project is called, its jobs and past events. It stores
    nothing, so it can have the server copy nothing of its own making.
    """
    asks = gateway(project, name)
    buckets_read = (buckets.NODES, buckets.SETTINGS, buckets.LEADERSHIP)
    read = (streams.EVENTS.name, streams.JOBS.name, *(f"KV_{bucket.name}" for bucket in buckets_read))
    return Permissions(
        publish=(
            *asks.publish,
            "$JS.API.INFO",
            *(f"$JS.API.STREAM.INFO.{one}" for one in read),
            *(f"$JS.API.DIRECT.GET.{one}{rest}" for one in read for rest in ("", ".>")),
        ),
        subscribe=(
            *asks.subscribe,
            subjects.JOB.format(project=project, node="*", job="*"),
            *(f"$KV.{bucket.name}.>" for bucket in buckets_read),
        ),
    )


def enrolment_user(name: str) -> Permissions:
    """Return what a machine without a key may do: ask to be enrolled."""
    return Permissions((subjects.ENROL.at(),), (f"{INBOX}.{name}.>",))


def enrolment_service(name: str) -> Permissions:
    """Return what the enrolment service may do towards machines without a key: answer."""
    return Permissions((ANSWERS,), (subjects.ENROL.at(), f"{INBOX}.{name}.>", *DISCOVERY))


def operator_service(name: str) -> Permissions:
    """Return what the enrolment service may do towards operators: answer."""
    return Permissions((ANSWERS,), (*_OF_OPERATORS, f"{INBOX}.{name}.>", *DISCOVERY))


def caller(name: str) -> Permissions:
    """Return what an operator on the server's machine may do: ask the enrolment service."""
    return Permissions(_OF_OPERATORS, (f"{INBOX}.{name}.>",))


def _of_primary(project: ProjectId) -> list[str]:
    return [operation.to_primary().at(project=project) for operation in subjects.NODE_OPERATIONS]


_READING = (subjects.STATUS, subjects.HISTORY, subjects.CONFLICTS, subjects.JOBS, subjects.JOB_BY_ID, subjects.BACKUPS)
_OF_OPERATORS = tuple(
    operation.at()
    for operation in (
        *subjects.INVITING_OPERATIONS,
        subjects.ADMIT,
        subjects.REVOKE,
        subjects.MEMBERS,
        subjects.ACCESS_LOG,
    )
)
