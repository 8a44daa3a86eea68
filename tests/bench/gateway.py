"""The gateway: what a thousand followers of events cost, and how fast it answers beside FastAPI.

python -m tests.bench.gateway [--seconds 12]   prints, and writes docs/benchmarks-gateway.md
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import uvloop

from membridge.embedded.nats_server import start_nats
from tests.bench.gateway_events import CLIENTS, EVENTS, PER_SECOND, Followers, measure
from tests.bench.gateway_http import CONNECTIONS, TURNS, Answers, Load, beside, ours, peer, postgres
from tests.bench.gateway_process import answering, service
from tests.bench.table import machine
from tests.fixtures.ports import free_port

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks-gateway.md"

INTRODUCTION = """\
Written by `python -m tests.bench.gateway` on {day}; load average {load} before each measurement.

## Requests

{connections} connections of a client in a process of its own; each sends its next request when it has the answer. Both
servers run and are measured in turns, {turns} each; the table has the median turn.
`GET /api/runtime/llm-tasks/{{id}}` reads one of 500 tasks, `POST /api/runtime/llm-tasks` submits a task with a prompt
of 500 bytes, which is on disk (fsync) with its audit record before the answer. Membridge is the gateway, NATS and a
coordinator, processes of their own; the gateway also writes each submission to its audit stream. The peer is one
process of FastAPI {fastapi} on uvicorn {uvicorn} (uvloop, httptools; `tests/bench/fastapi_peer.py`) that checks a key,
validates with pydantic and writes the same tables of a database of its own: aiosqlite (WAL, `synchronous=FULL`), or a
pool of asyncpg.
"""
SPENT = """\
Milliseconds of the processor for one request, by process:

"""
EVENTS_OF = """\
## Followers of events

{clients:,} clients of `GET /api/events` in a process of their own; {events} events of 400 bytes, {rate:g} in a second.
Times are from the publication over NATS to the receipt by a client, of all clients.

"""


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gateway", description=__doc__)
    parser.add_argument("--seconds", type=float, default=12.0)
    options = parser.parse_args()
    loads: list[str] = []
    found: dict[str, tuple[Answers, Answers]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="mb-gateway-", dir="/tmp") as text,
        postgres(Path(text) / "pg") as addresses,
    ):
        folder = Path(text)
        for name, databases in {"SQLite": ("", ""), "PostgreSQL": addresses}.items():
            loads.append(_load())
            with (
                ours(databases[0], folder / f"ours {name}") as mine,
                peer(databases[1], folder / f"peer {name}") as other,
            ):
                found[name] = beside(mine, other, options.seconds)
        loads.append(_load())
        followers = _followers(folder / "events")
    page = _page(found, followers, loads)
    sys.stdout.write(page)
    PAGE.write_text(page, encoding="utf-8")


def _followers(folder: Path) -> Followers:
    port = free_port()
    folder.mkdir()
    listen = f"127.0.0.1:{port}"
    with (
        start_nats(folder / "nats") as server,
        service("coordinator", server.url, folder),
        service("gateway", server.url, folder, MEMBRIDGE_GATEWAY_LISTEN=listen) as gateway,
    ):
        uvloop.run(answering(port))
        return uvloop.run(measure(server.url, port, gateway))


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _page(found: dict[str, tuple[Answers, Answers]], followers: Followers, loads: Sequence[str]) -> str:
    rates, spent = list[Sequence[str]](), list[Sequence[str]]()
    for database, (mine, other) in found.items():
        for what in ("get", "post"):
            one, another = getattr(mine, what), getattr(other, what)
            times = one.rate / another.rate
            rates.append(
                (f"{what.upper()}, {database}", _rate(one), _rate(another), f"{times:.1f}x", "2x", _met(times >= 2.0))
            )
            spent.append((f"{what.upper()}, {database}", _spent(one), _spent(another)))
    times = ", ".join(f"{seconds * 1e3:.0f}" for seconds in (followers.p50, followers.p99, followers.slowest))
    room = 16 << 20
    said = [
        ("more resident memory with all", _mib(followers.connected), "16 MiB", _met(followers.connected <= room)),
        ("the same after the events", _mib(followers.after), "16 MiB", _met(followers.after <= room)),
        ("to a client: p50, p99, slowest", f"{times} ms", "p99 50 ms", _met(followers.p99 <= 0.05)),
        ("the gateway's processor for one event to all", f"{followers.milliseconds:.1f} ms", "", ""),
        ("resident memory of the idle gateway", _mib(followers.idle), "45 MiB", _met(followers.idle <= 45 << 20)),
    ]
    introduction = INTRODUCTION.format(
        day=datetime.now(UTC).date(),
        load=", ".join(loads),
        connections=CONNECTIONS,
        turns=TURNS,
        fastapi=version("fastapi"),
        uvicorn=version("uvicorn"),
    )
    events = EVENTS_OF.format(clients=CLIENTS, events=EVENTS, rate=PER_SECOND)
    parts = (
        "# Benchmarks of the gateway\n",
        introduction,
        _table(("requests a second; p50, p99", "Membridge", "FastAPI", "", "goal", "met"), rates),
        f"{SPENT}{_table(('', 'Membridge', 'FastAPI'), spent)}",
        f"{events}{_table(('measured', 'Membridge', 'goal', 'met'), said)}",
        "## Machine\n",
        machine(),
    )
    return "\n".join(parts)


def _rate(load: Load) -> str:
    return f"{load.rate:,.0f}/s; {load.p50 * 1e3:.1f}, {load.p99 * 1e3:.1f} ms"


def _spent(load: Load) -> str:
    return ", ".join(f"{name} {spent:.2f}" for name, spent in load.milliseconds.items())


def _mib(size: float) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def _met(met: bool) -> str:
    return "yes" if met else "**no**"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
