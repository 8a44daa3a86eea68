"""Measure Membridge and its references in one run, print the table, and write docs/benchmarks.md.

python -m tests.bench              everything; about a minute
python -m tests.bench --references the references alone, printed and not written
"""

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import peers, table
from tests.bench.database import grow
from tests.bench.results import Ours, Scene
from tests.bench.s3 import start_s3

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
MEGABYTES = 53


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure against the references.")
    parser.add_argument("--references", action="store_true", help="measure the references alone, write nothing")
    parser.add_argument("--megabytes", type=int, default=MEGABYTES, help="size of the database (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="membridge-bench-") as folder, start_s3(Path(folder) / "s3") as s3:
        scene = Scene(s3, Path(folder) / "original.db", Path(folder))
        _say(f"a database of {options.megabytes} MiB")
        grow(scene.original, options.megabytes)
        _say("Litestream")
        litestream = peers.litestream(scene.original, s3, scene.scratch)
        _say("the old tool's way")
        old = peers.whole_file(scene.original, s3, scene.scratch)
        ours = None if options.references else _measure(scene)
        rows = table.rows(ours, litestream, old)
        sys.stdout.write(table.markdown(rows))
        if ours:
            PAGE.write_text(table.page(rows, scene.original, f"{datetime.now(UTC):%Y-%m-%d}"), encoding="utf-8")


def _measure(scene: Scene) -> Ours:
    from tests.bench.ours import measure  # noqa: PLC0415  # it loads Membridge, which the references do without

    _say("Membridge")
    return measure(scene)


def _say(step: str) -> None:
    sys.stderr.write(f"measuring: {step}\n")


if __name__ == "__main__":
    main()
