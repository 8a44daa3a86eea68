"""The rules together: any number of steps, lost answers, suspends, crashes and wiped stores, never two primaries.

A model stands for the bucket; each node's clock has its own offset, a write may be carried out without its answer
arriving, and a decision may be followed late by its write.
"""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from membridge.leadership import rules
from membridge.leadership.rules import HeldEpoch, LeaseState, Observation, Step, Timing
from schemas.leadership import Policy

TIMING = Timing.of(12.0, grace=0.0)
NODES = st.integers(0, 2)
#: Around the instants at which a rule changes its mind: a third, two thirds and the whole of the TTL.
SECONDS = st.sampled_from([0.1, 2.0, 4.0, 7.9, 8.1, 12.0])


@dataclass
class Entry:
    """A stored lease."""

    revision: int
    term: int
    expires_at: float


@dataclass
class Node:
    """What one process knows; a restart forgets all of it."""

    offset: float
    seen: Observation | None = None
    entry: Entry | None = None
    held: HeldEpoch | None = None
    revision: int = 0
    term: int = 0
    highest: int = 0
    #: What was decided and not yet written.
    decided: tuple[Observation, Entry | None] | None = None


@dataclass
class Store:
    """The server: what it holds, and which revisions their holders deleted."""

    revision: int = 0
    entry: Entry | None = None
    counter: int | None = None
    released: set[int] = field(default_factory=set)


class Cluster(RuleBasedStateMachine):
    """Three nodes and a server that may forget."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.store = Store()
        self.nodes = [Node(offset) for offset in (0.0, 5000.0, -300.0)]
        self.timing = 0
        self.committed = 0
        self.epochs: dict[int, int] = {}

    def clock(self, node: Node) -> float:
        return self.now + node.offset

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if self.store.entry is not None and self.now >= self.store.entry.expires_at:
            self.store.entry = None

    @rule(index=NODES)
    def a_node_looks(self, index: int) -> None:
        node, entry = self.nodes[index], self.store.entry
        if node.seen is not None and entry == node.entry:
            return
        kind = None if entry is None else LeaseState.OURS if entry.term == node.term else LeaseState.HELD
        released = entry is None and node.entry is not None and node.entry.revision in self.store.released
        node.seen, node.entry = rules.observe(self.clock(node), node.seen, kind, released=released), entry

    @rule(index=NODES)
    def a_node_decides(self, index: int) -> None:
        node = self.nodes[index]
        if node.held is None and node.seen is not None:
            wait = rules.wait_of_candidate(self.clock(node), node.seen, TIMING, preferred=True, policy=Policy.MANUAL)
            node.decided = (node.seen, node.entry) if wait == 0.0 else None

    @rule(index=NODES, answered=st.booleans())
    def a_node_writes_what_it_decided(self, index: int, answered: bool) -> None:
        node = self.nodes[index]
        decided, node.decided = node.decided, None
        if decided is None or node.held is not None:
            return
        seen, entry = decided
        known = max(node.highest, self.committed)
        worth = rules.after_loss(self.clock(node), seen, has_counter=self.store.counter is not None, known=known)
        if worth is not seen:
            node.seen = worth
            return
        epoch = rules.next_epoch(self.store.counter or 0, known)
        self.store.counter = node.highest = epoch
        if node.seen is not seen:
            return
        self.timing += 1
        node.term, sent = self.timing, self.clock(node)
        if (revision := self._write(entry.revision if entry else 0, node.term)) and answered:
            node.held, node.revision = HeldEpoch(epoch, sent), revision
            assert self.epochs.setdefault(epoch, node.term) == node.term
            self.committed = max(self.committed, epoch)

    @rule(index=NODES, answered=st.booleans())
    def a_node_contends(self, index: int, answered: bool) -> None:
        self.a_node_looks(index)
        self.a_node_decides(index)
        self.a_node_writes_what_it_decided(index, answered)

    @rule(index=NODES, late=SECONDS, answered=st.booleans())
    def a_holder_steps(self, index: int, late: float, answered: bool) -> None:
        node = self.nodes[index]
        if node.held is None:
            return
        step = rules.step_of_holder(self.clock(node), node.held, TIMING, wanted=True)
        if step is Step.STOP:
            node.held = None
        if step is not Step.RENEW:
            return
        sent = self.clock(node)
        self.time_passes(late)
        revision = self._write(node.revision, node.term)
        if not revision and self.store.entry is not None and self.store.entry.term == node.term:
            # The answer to the last one was lost.
            revision = self._write(self.store.entry.revision, node.term)
        if not revision:
            node.held = None
        elif answered:
            node.held, node.revision = HeldEpoch(node.held.epoch, sent), revision

    @rule(index=NODES)
    def a_holder_releases(self, index: int) -> None:
        node = self.nodes[index]
        if node.held is not None:
            node.held, node.term = None, 0
            if node.seen is None or node.seen.lease is not LeaseState.HELD:
                node.seen = Observation(LeaseState.FREE, self.clock(node))
            if self.store.entry is not None and self.store.entry.revision == node.revision:
                self.store.released.add(node.revision)
                self.store.entry = None

    @rule(index=NODES)
    def a_node_restarts(self, index: int) -> None:
        self.nodes[index] = Node(self.nodes[index].offset)

    # A store that is wiped before a node has seen what was written since the last wipe takes that from everybody's
    # memory: then only the object store's fence holds. Watchers see a change within two seconds.
    @precondition(lambda self: all(node.entry == self.store.entry for node in self.nodes))
    @rule()
    def the_store_is_wiped(self) -> None:
        self.store = Store()

    @invariant()
    def at_most_one_acts(self) -> None:
        acting = [node for node in self.nodes if rules.may_act(self.clock(node), node.held, TIMING)]
        assert len(acting) <= 1

    def _write(self, over: int, term: int) -> int:
        """Return the new revision, 0 when `over` is not the last one."""
        if (self.store.entry.revision if self.store.entry else 0) != over:
            return 0
        self.store.revision += 1
        self.store.entry = Entry(self.store.revision, term, self.now + TIMING.ttl)
        return self.store.revision


Cluster.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestTogether = Cluster.TestCase
