"""The old tool's commands: the lines that its callers looked for, around what Membridge does.

`push_sqlite` commits a snapshot, `pull_sqlite` replaces the database; claude-mem keeps running. Exit codes: 0 done,
1 failed, 2 a primary refused the pull, 3 a secondary's push is blocked. `doctor` prints its verdict and ends with 0.
"""

import sys
from collections.abc import Callable, Sequence

from membridge.cli import lane, requests
from membridge.cli.command import Invocation
from membridge.errors import MembridgeError, NoResponderError
from membridge.settings import ProjectConfig, Settings
from membridge.system import clock
from schemas import subjects
from schemas.identity import canonical_id
from schemas.leadership import LeadershipReply
from schemas.node import Check, Empty, Finding
from schemas.snapshot import PullOutcome, PullRequest, PushOutcome, PushRequest

#: The exit codes of the two refusals.
_PULL_REFUSED, _PUSH_BLOCKED = 2, 3
_RULE, _WIDE_RULE = "=" * 40, "=" * 44
#: What the doctor of the old tool called a missing hook or worker.
_LESSER = frozenset({"hooks", "worker", "claude-mem"})


def push_sqlite() -> None:
    """Commit a snapshot of the memory, and exit."""

    def act(invocation: Invocation) -> None:
        settings = invocation.settings
        _head("push", settings)
        request = PushRequest(
            snapshot=True,
            force=settings.lane.force_push,
            allow_secondary=settings.leadership.allow_secondary_push,
        )
        reply = requests.ask(invocation, subjects.PUSH, request)
        if reply.outcome is PushOutcome.UNCHANGED:
            _say("  RESULT: remote already up to date")
            return
        _complete("PUSH COMPLETE", settings)
        _say(f"  {lane.describe_push(reply)}")

    _exit(act)


def pull_sqlite() -> None:
    """Replace the memory by the newest snapshot, after a backup, and exit."""

    def act(invocation: Invocation) -> None:
        settings = invocation.settings
        _head("pull", settings)
        allowed = settings.leadership.allow_primary_pull_override
        reply = requests.ask(invocation, subjects.PULL, PullRequest(replace=True, allow_primary=allowed))
        if reply.outcome is PullOutcome.UNCHANGED:
            _say("  RESULT: already up to date")
            return
        _complete("SYNC COMPLETE", settings)
        _say(f"  backup dir:      {reply.backup or 'none'}")
        for line in lane.describe_pull(reply).splitlines():
            _say(f"  {line}")

    _exit(act)


def doctor() -> None:
    """Print what the doctor finds, and the verdict as STATUS."""

    def act(invocation: Invocation) -> None:
        name = _first(invocation.settings).name
        _say(f"{_WIDE_RULE}\n  claude-mem sync — doctor\n{_WIDE_RULE}\n")
        _say(f"  project_name:         {name}\n  canonical_project_id: {canonical_id(name)}")
        _say(f"  node_id:              {invocation.settings.node.id}\n")
        checks = requests.examine(invocation, None).checks
        for check in checks:
            _say(f"  {check.name}: {check.finding.upper()}: {check.detail}")
            if check.remedy:
                _say(f"    {check.remedy}")
        _say(f"\n{_WIDE_RULE}\n  STATUS: {verdict(checks)}\n{_WIDE_RULE}")

    _exit(act)


def print_project() -> None:
    """Print the project's name and canonical id."""

    def act(invocation: Invocation) -> None:
        name = _first(invocation.settings).name
        _say(f"project_name: {name}\ncanonical_project_id: {canonical_id(name)}")

    _exit(act)


def leadership_info() -> None:
    """Print the lease of the project, and the role of this node."""

    def act(invocation: Invocation) -> None:
        settings = invocation.settings
        _say("=== Leadership Lease ===")
        _say(f"  node_id:      {settings.node.id}\n  canonical_id: {_first(settings).id}\n")
        try:
            reply = requests.ask_daemon(invocation, subjects.LEADERSHIP_GET, Empty())
        except NoResponderError:
            # Without a daemon this process only knows its own role.
            known = requests.ask(invocation, subjects.STATUS, Empty()).project
            _say(f"  role:          {known.role}\n  primary:       ?\n  epoch:         {known.epoch}")
            return
        _leadership(reply, settings)

    _exit(act)


def verdict(checks: Sequence[Check]) -> str:
    """Return the old tool's one-line verdict."""
    failed = [check for check in checks if check.finding is Finding.FAIL]
    if any(not _LESSER & set(check.name.lower().split()) for check in failed):
        return "ERROR"
    if failed or any(check.finding is Finding.WARN for check in checks):
        lesser = [check.name for check in checks if check.finding in {Finding.WARN, Finding.FAIL}]
        return f"DEGRADED — {', '.join(lesser)}"
    return "OK — READY FOR PRODUCTION"


def _leadership(reply: LeadershipReply, settings: Settings) -> None:
    leader = reply.leader
    primary = leader.primary_node_id if leader else None
    _say(f"  role:          {'primary' if primary == settings.node.id else 'secondary'}")
    _say(f"  primary:       {primary or reply.preferred or '?'}")
    _say(f"  epoch:         {leader.epoch if leader else '?'}\n  policy:        {reply.policy}")
    if leader is not None:
        expires = clock.known(leader.expires_at)
        seconds = int((expires - clock.now()).total_seconds()) if expires else 0
        _say(f"  issued_by:     {leader.issued_by or '?'}\n  issued_at:     {leader.issued_at}")
        _say(f"  ttl_remaining: {max(0, seconds)}s")
    if reply.needs_ui_selection:
        _say("\n  WARNING: needs_ui_selection=true")
        _say(f"  Confirm the primary node: membridge leader select {settings.node.id}")


def _head(verb: str, settings: Settings) -> None:
    project = _first(settings)
    _say(f"=== claude-mem MinIO {verb} sync ===\n  project:      {project.name}\n  canonical_id: {project.id}")
    _say(f"  local db:     {project.database}\n")


def _complete(title: str, settings: Settings) -> None:
    _say(f"\n{_RULE}\n{title}\n{_RULE}\n  canonical_id:    {_first(settings).id}")


def _first(settings: Settings) -> ProjectConfig:
    """Return the project of CLAUDE_PROJECT_ID: the old tool knew one at a time."""
    return settings.projects[0]


def _exit(act: Callable[[Invocation], None]) -> None:
    """Do one command and end this process if it fails, with the old tool's code."""
    try:
        act(Invocation(as_json=True, project_name=None))
    except MembridgeError as error:
        code = error.mapping.exit
        if code == _PUSH_BLOCKED:
            _say("  SECONDARY: push blocked by default.")
        elif code == _PULL_REFUSED:
            _say("  PRIMARY: refusing destructive pull overwrite of local DB.")
        _say(f"  ERROR: {error.message}")
        if error.remedy:
            _say(f"  {error.remedy}")
        sys.exit(code)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


COMMANDS: dict[str, Callable[[], None]] = {
    "pull_sqlite": pull_sqlite,
    "push_sqlite": push_sqlite,
    "doctor": doctor,
    "print_project": print_project,
    "leadership_info": leadership_info,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of the old tool; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in COMMANDS:
        _say(f"Usage: sqlite_minio_sync.py <{'|'.join(COMMANDS)}>")
        return 1
    COMMANDS[given[0]]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
