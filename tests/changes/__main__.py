"""Random histories by hand: `python -m tests.changes --rounds 10000 --seed 1 --of index`."""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.changes.history import History, LookHistory
from tests.changes.index_history import IndexHistory

#: Rounds of one history: each has a page size, a way of vacuuming and dice of its own.
LENGTH = 25
KINDS: dict[str, type[History]] = {"look": LookHistory, "index": IndexHistory}


def run(kind: type[History], rounds: int, seed: int) -> Counter[str]:
    """Do rounds of histories; return which ways the looks took. Raises MissedRowError."""
    ways: Counter[str] = Counter()
    for number in range((rounds + LENGTH - 1) // LENGTH):
        with tempfile.TemporaryDirectory() as folder:
            history = kind(Path(folder), seed + number)
            try:
                for _ in range(min(LENGTH, rounds - number * LENGTH)):
                    history.round()
            finally:
                history.close()
            ways += history.ways
    return ways


def main() -> None:
    """Run and print the ways."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--of", choices=KINDS, default="look")
    wanted = parser.parse_args()
    began = time.monotonic()
    for way, count in run(KINDS[wanted.of], wanted.rounds, wanted.seed).most_common():
        sys.stdout.write(f"{count:6} {way}\n")
    seconds = time.monotonic() - began
    sys.stdout.write(f"{wanted.rounds} rounds from seed {wanted.seed} in {seconds:.0f} s: no row missed\n")


if __name__ == "__main__":
    main()
