"""Every KV bucket: its name, what a value is, how long it lives.

A key is always one or more ids from `schemas.identity`. No bucket that nodes may write to has expiry markers: a bucket
with markers accepts roll-ups, and a roll-up lets a writer of one key delete all others.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from schemas.fields import Instant, Line, Sentence, Whole
from schemas.gateway_nats import Agent, Federation
from schemas.identity import Epoch
from schemas.leadership import EpochCounter, LeaderRecord, ProjectSettings
from schemas.leases import Lease
from schemas.node import NodePresence
from schemas.snapshot import Head
from schemas.task_changes import TaskJob
from schemas.web import ApiKey, EndedSession, KeyUse, SessionSecret
from schemas.wire import Wire

V_co = TypeVar("V_co", bound=Wire, covariant=True)


class PushLeaseRecord(Wire, frozen=True, kw_only=True):
    """Holder of a push lease, for people; the entry's revision decides who holds it.

    `nonce` tells one holding from another of the same owner.
    """

    owner: Line
    epoch: Epoch = 0
    since: Instant
    purpose: Sentence = ""
    nonce: Line = ""


class SchedulerRecord(Wire, frozen=True, kw_only=True):
    """Which coordinator schedules, under which epoch of the database."""

    coordinator: Line
    epoch: Whole


@dataclass(frozen=True, slots=True)
class Bucket(Generic[V_co]):
    """A KV bucket. `ttl` is the default life of an entry in seconds, None for ever.

    An `announced` bucket has markers that report each expiry; only trusted processes may write to it.
    """

    name: str
    value: type[V_co]
    ttl: float | None
    history: int
    max_bytes: int
    announced: bool = False


LEADERSHIP = Bucket("leadership", LeaderRecord, ttl=30.0, history=1, max_bytes=16 << 20)
NODES = Bucket("nodes", NodePresence, ttl=30.0, history=1, max_bytes=16 << 20)
PUSH_LEASES = Bucket("locks", PushLeaseRecord, ttl=60.0, history=1, max_bytes=16 << 20)
HEADS = Bucket("heads", Head, ttl=None, history=8, max_bytes=16 << 20)
EPOCHS = Bucket("epochs", EpochCounter, ttl=None, history=1, max_bytes=16 << 20)
SETTINGS = Bucket("settings", ProjectSettings, ttl=None, history=8, max_bytes=16 << 20)

ALL: tuple[Bucket[Wire], ...] = (LEADERSHIP, NODES, PUSH_LEASES, HEADS, EPOCHS, SETTINGS)

LEASES = Bucket("leases", Lease, ttl=3_900.0, history=1, max_bytes=64 << 20, announced=True)
SCHEDULING = Bucket("scheduling", SchedulerRecord, ttl=10.0, history=1, max_bytes=1 << 20)
#: A job is written at each step, and kept for a week after the last one.
TASK_JOBS = Bucket("task_jobs", TaskJob, ttl=604_800.0, history=1, max_bytes=4 << 20)
#: Those of the task runtime; its coordinator makes them.
RUNTIME: tuple[Bucket[Wire], ...] = (LEASES, SCHEDULING, TASK_JOBS)

API_KEYS = Bucket("api_keys", ApiKey, ttl=None, history=1, max_bytes=16 << 20)
API_KEY_USES = Bucket("api_key_uses", KeyUse, ttl=None, history=1, max_bytes=4 << 20)
#: As long as a session may last.
ENDED_SESSIONS = Bucket("ended_sessions", EndedSession, ttl=43_200.0, history=1, max_bytes=16 << 20)
SESSION_SECRET = Bucket("session_secret", SessionSecret, ttl=None, history=1, max_bytes=1 << 20)
#: Machines without a node that old clients registered, and the server that a gateway passes requests on to.
AGENTS = Bucket("agents", Agent, ttl=None, history=1, max_bytes=4 << 20)
FEDERATION = Bucket("federation", Federation, ttl=None, history=1, max_bytes=1 << 20)
#: What each machine said of itself last, kept for the time when it is away.
LAST_SEEN = Bucket("last_seen", NodePresence, ttl=None, history=1, max_bytes=16 << 20)
#: Those of the gateway.
GATEWAY: tuple[Bucket[Wire], ...] = (AGENTS, FEDERATION, LAST_SEEN)
#: Those of the services that answer HTTP, which share them.
WEB: tuple[Bucket[Wire], ...] = (API_KEYS, API_KEY_USES, ENDED_SESSIONS, SESSION_SECRET)
