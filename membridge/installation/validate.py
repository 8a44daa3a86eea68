"""Checks of an installation against its receipt: files, services, permissions, versions.

Each function returns lines like the doctor's. They change nothing and need no NATS.
"""

import os
import stat
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import membridge
from membridge.errors import FileAccessError, MembridgeError
from membridge.node.findings import fail, ok, skipped, warn
from membridge.settings import Settings
from membridge.system import files
from membridge.system.receipt import Receipt
from schemas.node import Check

#: Seconds for which a service manager may answer; the first question on a busy board takes a while.
ANSWERS = 20
#: Environments beside the one that runs: the one before it, for a roll-back.
KEPT = 1


def installation(receipt: Receipt | None, settings: Settings | MembridgeError) -> list[Check]:
    """Return the checks of what the installer wrote and enabled, and of the folders of this user. Blocking."""
    checks = [_files(receipt), _versions(receipt), *_services(receipt)]
    return [*checks, _permissions(receipt, settings)]


def _files(receipt: Receipt | None) -> Check:
    name = "files"
    if receipt is None:
        return skipped(name, "another tool installed membridge: there is no receipt")
    wrong: list[str] = []
    for file, sums in receipt.files.items():
        try:
            changed = files.sha256_of(file) != sums[-1]
        except FileAccessError as error:
            wrong.append(error.message)
            continue
        if changed:
            wrong.append(f"{file} was changed")
    wrong += [f"{link} is not a link to an environment" for link in receipt.links if not (link / "bin").is_dir()]
    if wrong:
        return fail(name, "; ".join(wrong), _run(receipt, receipt.role))
    return ok(name, f"{len(receipt.files)} files are as {receipt.path} says")


def _versions(receipt: Receipt | None) -> Check:
    name, running = "versions", membridge.__version__
    if receipt is None:
        return skipped(name, f"membridge {running}; there is no receipt to compare it with")
    noted = receipt.facts.get("version", "")
    if noted != running:
        return fail(
            name, f"membridge {running} runs, and the receipt says {noted or 'none'}", _run(receipt, receipt.role)
        )
    found = sorted(path.name for path in (receipt.prefix / "versions").glob("*") if path.is_dir())
    unfinished = [one for one in found if not (receipt.prefix / "versions" / one / "complete").exists()]
    if unfinished or len(found) > KEPT + 1:
        return warn(name, f"unused environments: {', '.join(unfinished or found)}", _run(receipt, "cleanup"))
    return ok(name, f"membridge {running}; {receipt.current} is {receipt.current.readlink()}")


def _services(receipt: Receipt | None) -> Generator[Check]:
    if receipt is None:
        yield skipped("services", "another tool installed membridge: there is no receipt")
        return
    if not receipt.services:
        yield skipped("services", "none was enabled: no service manager ran when it was installed")
    for init, service in receipt.services:
        state = _state(init, service, user=receipt.scope == "user")
        if state.runs:
            yield ok(service, f"{init}: {state.word}")
        else:
            yield fail(service, f"{init}: {state.word}", f"run `{state.start}`, and read its log")


@dataclass(frozen=True, slots=True)
class _State:
    """What a service manager says of a service, and how to start it."""

    runs: bool
    word: str
    start: str


def _state(init: str, service: str, *, user: bool) -> _State:
    scope = ["--user"] if user else []
    target = f"gui/{os.getuid()}/{service}"
    ask, start = {
        "systemd": (["systemctl", *scope, "is-active", service], ["systemctl", *scope, "restart", service]),
        "openrc": (["rc-service", service, "status"], ["rc-service", service, "restart"]),
        "launchd": (["launchctl", "print", target], ["launchctl", "kickstart", "-k", target]),
    }[init]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=ANSWERS, check=False)  # noqa: S603 - fixed commands
    except (OSError, subprocess.TimeoutExpired) as error:
        return _State(runs=False, word=f"{ask[0]} does not answer ({error})", start=" ".join(start))
    if done.returncode == 0:
        return _State(runs=True, word="runs", start="")
    return _State(runs=False, word=done.stdout.strip().split("\n")[0][:100] or "does not run", start=" ".join(start))


def _permissions(receipt: Receipt | None, settings: Settings | MembridgeError) -> Check:
    name = "permissions"
    ours: list[Path] = []
    private: list[Path] = []
    if receipt is not None:
        ours = [receipt.prefix, receipt.path, receipt.current.resolve(), *receipt.files]
    if not isinstance(settings, MembridgeError):
        node = settings.node
        private = [node.state_dir, node.state_dir / "access", node.state_dir / "spool", node.config_dir / "keys"]
    for path in ours:
        if (mode := _mode(path)) & (stat.S_IWOTH | stat.S_IWGRP) and not mode & stat.S_ISVTX:
            return fail(name, f"{path}: others may write it, and it is run", f"run `chmod go-w {path}`")
    for path in private:
        if _mode(path) & (stat.S_IWOTH | stat.S_IWGRP):
            return fail(name, f"{path}: others may write it", f"run `chmod go-w {path}`")
    if isinstance(settings, MembridgeError):
        return ok(name, f"{len(ours)} paths belong to their owner alone")
    for path in private:
        if path.exists() and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            return fail(name, f"{path} belongs to another user", "run membridge as the user who owns it")
    return ok(name, f"only their owner may write {len(ours) + sum(path.exists() for path in private)} paths")


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _run(receipt: Receipt, mode: str) -> str:
    return f"run `{receipt.line(mode)}`"
