"""What `status`, `nodes` and `jobs` print."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from membridge.cli import state
from schemas.identity import NodeId, canonical_id
from schemas.leadership import Role
from schemas.node import (
    Job,
    JobsReply,
    JobState,
    NodePresence,
    NodesReply,
    ProjectPresence,
    StatusReply,
)

PROJECT = canonical_id("claude-mem")
PI, LAPTOP = NodeId("raspberrypi-4"), NodeId("laptop")


def before(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def presence(**changes: object) -> ProjectPresence:
    fields: dict[str, object] = {
        "project": PROJECT, "name": "claude-mem", "role": Role.SECONDARY, "epoch": 4, "head_seq": 120,
        "mirror_seq": 118, "lag": 2, "rows": {"observations": 12_320}, "unsynced": 3, "database": "/d/claude-mem.db",
    }  # fmt: skip
    return ProjectPresence(**{**fields, **changes})  # type: ignore[arg-type]


def test_status_says_where_the_node_stands(printed: Callable[[], list[str]]) -> None:
    state.print_status(
        StatusReply(node=LAPTOP, version="0.1.0", project=presence(conflicts=1), primary=PI, last_error="no\x1b[2Jdisk")
    )

    lines = printed()
    assert lines[0] == "node        laptop (membridge 0.1.0)"
    assert "role        secondary; raspberrypi-4 is primary, epoch 4" in lines
    assert "snapshot    118 of 120, 2 commits behind" in lines
    assert "unsynced    3 rows" in lines
    assert "conflicts   1: see `membridge conflicts`" in lines
    assert "last error  no?[2Jdisk" in lines
    assert not any("quarantined" in line for line in lines)


def test_status_says_of_when_a_number_is_that_was_not_read_now(printed: Callable[[], list[str]]) -> None:
    now = before(0)
    project = presence(head_at=now, counted_at=before(120), journal_at=before(11.5), conflicts=1, quarantined=2)

    state.print_status(StatusReply(node=LAPTOP, version="0.1.0", project=project, primary=PI, answered_at=now))

    lines = printed()
    assert "snapshot     118 of 120, 2 commits behind" in lines
    assert "rows         12,320 observations (as of 2 min ago)" in lines
    assert "unsynced     3 rows (as of 2 min ago)" in lines
    assert "conflicts    1 (as of 11 s ago): see `membridge conflicts`" in lines
    assert "quarantined  2 (as of 11 s ago): see `membridge quarantine`" in lines
    assert lines[-1].startswith("as of        2")


def test_status_says_when_all_rows_were_compared_and_what_had_been_missed(printed: Callable[[], list[str]]) -> None:
    project = presence(audited_at=before(7_205), missed=3)

    state.print_status(StatusReply(node=LAPTOP, version="0.1.0", project=project, answered_at=before(0)))

    lines = printed()
    assert "missed    3 keys: see `membridge doctor`" in lines
    assert "compared  all rows, 2 h ago" in lines


def test_status_of_a_node_that_has_counted_nothing_yet_says_so(printed: Callable[[], list[str]]) -> None:
    state.print_status(StatusReply(node=LAPTOP, version="0.1.0", project=presence(rows={}), answered_at=before(0)))

    assert "rows      not counted yet" in printed()


def test_status_of_a_new_project_says_that_nobody_leads(printed: Callable[[], list[str]]) -> None:
    project = presence(role=Role.NONE, head_seq=0, mirror_seq=0, lag=0, rows={}, unsynced=0)

    state.print_status(StatusReply(node=LAPTOP, version="0.1.0", project=project))

    lines = printed()
    assert "role      none; no node is primary: run `membridge leader select NODE`" in lines
    assert "snapshot  none yet" in lines


def test_nodes_have_a_line_for_each_project(printed: Callable[[], list[str]]) -> None:
    node = NodePresence(
        node=PI, version="0.1.0", python="3.11", os="Linux", arch="aarch64", updated_at=before(4),
        projects=[presence(), presence(name="a-very-long-project-name-that-does-not-fit-anywhere")],
    )  # fmt: skip

    state.print_nodes(NodesReply(nodes=[node, NodePresence(node=LAPTOP, version="", python="", os="", arch="")]))

    lines = printed()
    assert lines[2].split() == ["raspberrypi-4", "4", "s", "ago", "0.1.0", "claude-mem", "secondary", "118", "2", "3"]
    assert len(lines) == 5


def test_nodes_say_of_when_a_number_is_that_the_node_could_not_read(printed: Callable[[], list[str]]) -> None:
    busy = presence(counted_at=before(120))
    node = NodePresence(node=PI, version="0.1.0", python="", os="", arch="", updated_at=before(0), projects=[busy])

    state.print_nodes(NodesReply(nodes=[node]))

    assert printed()[2].endswith("118    2  3 (as of 2 min ago)")


def test_nodes_say_which_project_has_no_primary_and_which_is_not_served(printed: Callable[[], list[str]]) -> None:
    failed = presence(name="work", role=Role.NONE, error="project work is not served: no space left")
    node = NodePresence(node=PI, version="0.1.0", python="", os="", arch="", projects=[presence(), failed])

    state.print_nodes(NodesReply(nodes=[node], leaderless=["claude-mem"]))

    lines = printed()
    assert lines[-2:] == [
        "claude-mem: no node is primary: run `membridge leader select NODE`",
        "raspberrypi-4: project work is not served: no space left",
    ]
    assert lines[3].split()[-3:] == ["?", "?", "?"]


def test_status_without_a_daemon_says_that_nothing_is_synchronised(printed: Callable[[], list[str]]) -> None:
    state.print_status(StatusReply(node=LAPTOP, version="0.1.0", project=presence(), primary=PI, running=False))

    assert "no daemon runs: nothing is synchronised" in " ".join(printed())


def test_a_failed_job_shows_its_error_in_full(printed: Callable[[], list[str]]) -> None:
    error = "object store http://minio:9000 does not answer: connection refused, tried four times"
    job = Job(
        id="j", project=PROJECT, node=PI, kind="pull", state=JobState.FAILED, started_at=before(100),
        ended_at=before(90), error=error,
    )  # fmt: skip

    state.print_jobs(JobsReply(jobs=[job]))

    lines = printed()
    column = lines[0].index("result")
    # A word that is longer than the column is broken, and nothing is left out.
    assert "".join("".join(line[column:].split()) for line in lines[2:]) == error.replace(" ", "")


def test_no_node_and_no_job_are_a_sentence(printed: Callable[[], list[str]]) -> None:
    state.print_nodes(NodesReply())
    state.print_jobs(JobsReply())

    assert printed() == ["no node is present", "no job yet"]
