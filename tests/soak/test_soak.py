"""A minute of the soak on S3 and half a minute on JetStream, the same each time; `just soak` rolls dice."""

from pathlib import Path

from tests.bench.s3 import S3
from tests.soak.run import soak

SECONDS = 60.0


async def test_a_minute_of_faults_that_is_the_same_each_time_loses_nothing(tmp_path: Path, seaweed: S3) -> None:
    report = await soak(tmp_path, seconds=SECONDS, seed=20261121, s3=seaweed)
    assert report.verdict.failures == (), report
    assert report.verdict.saved > 50
    assert len(report.faults) > 5


async def test_half_a_minute_of_faults_with_the_snapshots_in_jetstream_loses_nothing(tmp_path: Path) -> None:
    report = await soak(tmp_path, seconds=SECONDS / 2, seed=20261128, s3=None)
    assert report.verdict.failures == (), report
    assert report.verdict.saved > 25
    assert len(report.faults) > 2
