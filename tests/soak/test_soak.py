"""A minute of the soak, once as always and once as never before."""

import secrets
from pathlib import Path

import pytest

from tests.bench.s3 import S3
from tests.soak.run import soak

SECONDS = 60.0


@pytest.mark.timeout(240)
async def test_a_minute_of_faults_that_is_the_same_each_time_loses_nothing(tmp_path: Path, seaweed: S3) -> None:
    report = await soak(tmp_path, seconds=SECONDS, seed=20261121, s3=seaweed)
    assert report.verdict.failures == (), report
    assert report.verdict.saved > 50
    assert len(report.faults) > 5


@pytest.mark.timeout(240)
async def test_a_minute_of_random_faults_loses_nothing(tmp_path: Path) -> None:
    seed = secrets.randbelow(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown where the test fails
    report = await soak(tmp_path, seconds=SECONDS, seed=seed, s3=None)
    again = f"python -m tests.soak --seconds {SECONDS:g} --store jetstream --seed {seed}"
    assert report.verdict.failures == (), f"{again}\n{report}"
    assert report.verdict.saved > 50
