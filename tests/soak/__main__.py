"""`just soak`: ten minutes of faults, or as many seconds as asked; prints the seed that repeats it."""

import argparse
import asyncio
import secrets
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from membridge.system import logging
from tests.bench.s3 import start_s3
from tests.soak.run import Report, soak


def main() -> int:
    """Run a soak and print what it did; exit with 1 when something was lost."""
    parser = argparse.ArgumentParser(prog="just soak")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--store", choices=("s3", "jetstream"), default="s3")
    parser.add_argument("--keep", type=Path, help="folder for the nodes' homes and logs, kept")
    asked = parser.parse_args()
    logging.setup(level="error")
    click.echo(f"seed {asked.seed}, {asked.seconds:g} s, {asked.store}")
    with TemporaryDirectory(prefix="membridge-soak-") as folder:
        root = asked.keep or Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        if asked.store == "s3":
            with start_s3(root / "s3") as server:
                report = asyncio.run(soak(root, seconds=asked.seconds, seed=asked.seed, s3=server))
        else:
            report = asyncio.run(soak(root, seconds=asked.seconds, seed=asked.seed, s3=None))
    return show(report)


def show(report: Report) -> int:
    """Print a report; return the exit code."""
    verdict = report.verdict
    for fault in report.faults:
        click.echo(f"  {fault}")
    click.echo(
        f"{len(report.faults)} faults, {verdict.saved} memories saved, {verdict.commits} commits in {verdict.epochs} "
        f"epochs, all agreed after {verdict.seconds_to_agree} s"
    )
    for failure in verdict.failures:
        click.echo(f"FAILED: {failure}")
    return 1 if verdict.failures else 0


if __name__ == "__main__":
    sys.exit(main())
