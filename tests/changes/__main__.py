"""Random histories by hand: `python -m tests.changes --rounds 10000 --seed 1 --of index`.

Those of the real claude-mem worker last for some time: `--of worker-look,worker-index --seconds 600`.
"""

import argparse
import math
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.changes.history import History, LookHistory
from tests.changes.index_history import IndexHistory
from tests.changes.memory_history import MemoryHistory
from tests.changes.worker_history import WorkerIndexHistory, WorkerLookHistory

#: Rounds of one history: each has a page size, a way of vacuuming and dice of its own.
LENGTH = 25
KINDS: dict[str, type[History]] = {
    "look": LookHistory,
    "index": IndexHistory,
    "memory": MemoryHistory,
    "worker-look": WorkerLookHistory,
    "worker-index": WorkerIndexHistory,
}


def run(kind: type[History], rounds: int, seed: int, *, seconds: float = math.inf) -> Counter[str]:
    """Do rounds of histories, for some seconds at most; return which ways the looks took. Raises MissedRowError."""
    ways: Counter[str] = Counter()
    end = time.monotonic() + seconds
    for number in range((rounds + LENGTH - 1) // LENGTH):
        with tempfile.TemporaryDirectory() as folder:
            history = kind(Path(folder), seed + number)
            try:
                for _ in range(min(LENGTH, rounds - number * LENGTH)):
                    if time.monotonic() < end:
                        history.round()
                        ways["rounds"] += 1
            finally:
                history.close()
            ways += history.ways
        if time.monotonic() >= end:
            break
    return ways


def main() -> None:
    """Run and print the ways."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=math.inf, help="for each kind")
    parser.add_argument("--of", default="look", help=f"one or more of {', '.join(KINDS)}")
    wanted = parser.parse_args()
    for name in str(wanted.of).split(","):
        began = time.monotonic()
        ways = run(KINDS[name], wanted.rounds, wanted.seed, seconds=wanted.seconds)
        for way, count in ways.most_common():
            sys.stdout.write(f"{count:6} {way}\n")
        seconds = time.monotonic() - began
        sys.stdout.write(f"{name}: {ways['rounds']} rounds from seed {wanted.seed} in {seconds:.0f} s: no row missed\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
