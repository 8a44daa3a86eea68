"""What a node may do in its role, and when it acts by itself.

Pure: takes roles, settings and instants, returns a decision or raises the refusal with its remedy.
"""

from dataclasses import dataclass
from enum import StrEnum

from membridge.errors import PrimaryPullRefusedError, RefusedError, SecondaryPushBlockedError
from schemas.leadership import Role

#: Seconds between two collections of garbage, and between two comparisons of everything.
A_DAY = 86_400.0


class PushAction(StrEnum):
    """What a push does on this node now."""

    COMMIT = "commit"
    PROPOSE = "propose"


@dataclass(frozen=True, slots=True)
class Quiet:
    """When a changed database is calm enough to be pushed, in seconds."""

    after: float = 5.0
    at_most: float = 60.0


def push_action(role: Role, *, snapshot: bool, allow_secondary_push: bool, primary: str | None) -> PushAction:
    """Return what a push does; `snapshot` insists on a commit.

    Raises SecondaryPushBlockedError for a commit from a node that is not primary.
    """
    if role is Role.PRIMARY:
        return PushAction.COMMIT
    if not snapshot:
        return PushAction.PROPOSE
    if allow_secondary_push:
        return PushAction.COMMIT
    leads = f"{primary} is primary" if primary else "no node is primary"
    raise SecondaryPushBlockedError(
        f"this node is not primary ({leads}), so it commits no snapshots",
        remedy="run `membridge push` to propose its rows, or `membridge leader select NODE` to make this node primary; "
        "`ALLOW_SECONDARY_PUSH=1 membridge push --snapshot` commits anyway",
    )


def check_primary(role: Role, what: str, *, primary: str | None) -> None:
    """Raise RefusedError when this node is not the one to do `what`."""
    if role is Role.PRIMARY:
        return
    leads = f"{primary} is primary" if primary else "no node is primary"
    remedy = f"run it on {primary}" if primary else "run `membridge leader select NODE` to choose one"
    raise RefusedError(f"only the primary {what}, and {leads}", remedy=remedy)


def check_restore(role: Role, *, newest: bool, primary: str | None) -> None:
    """Raise RefusedError when this node may not restore a state: any may restore the newest, into its own database."""
    if not newest:
        check_primary(role, "restores an earlier memory", primary=primary)


def is_daily_due(last: float, now: float) -> bool:
    """Return whether a daily task is due; `last` is the time of the previous one, in seconds of one clock.

    A clock that was set back makes it due: doing it once more harms nothing.
    """
    return not 0.0 <= now - last < A_DAY


def proposes_now(node: str, *, leader: str | None, preferred: str | None) -> bool:
    """Return whether a secondary offers its rows by itself now.

    One that is about to lead waits: it will commit them. With another primary away the work queue keeps the offer.
    """
    return leader is not None or preferred not in {None, node}


def check_replace(role: Role, *, differs: bool, allow_primary_pull_override: bool) -> None:
    """Raise PrimaryPullRefusedError when a primary's database that differs from the head would be replaced."""
    if role is Role.PRIMARY and differs and not allow_primary_pull_override:
        raise PrimaryPullRefusedError(
            "this node is primary and its database differs from the newest snapshot: replacing it could lose rows",
            remedy="run `membridge push` first, or `ALLOW_PRIMARY_PULL_OVERRIDE=1 membridge pull --replace`",
        )


def quiet_wait(now: float, first_change: float, last_change: float, quiet: Quiet) -> float:
    """Return the seconds to wait until a database changed at these instants is pushed; 0 for now."""
    calm, latest = last_change + quiet.after, first_change + quiet.at_most
    return max(0.0, min(calm, latest) - now)
