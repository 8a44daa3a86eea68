"""What the `interop` tests get: one MinIO for the run, as the store of every test that asks for one."""

import secrets
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from membridge.objectstore.protocol import ObjectStore
from membridge.objectstore.s3.client import S3Options, open_s3
from tests.bench.s3 import S3
from tests.interop.minio import start_minio


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder: it needs programs that only `just interop` builds."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.interop)


@pytest.fixture(scope="session")
def minio() -> Generator[S3]:
    """A running MinIO; its data and its ports die with the run."""
    with TemporaryDirectory(prefix="membridge-minio-") as folder, start_minio(Path(folder)) as server:
        yield server


@pytest.fixture
def s3_options(minio: S3) -> S3Options:
    """How to reach an empty bucket of MinIO."""
    bucket = minio.make_bucket(f"test-{secrets.token_hex(6)}")
    return S3Options(endpoint=minio.endpoint, access_key=minio.access_key, secret_key=minio.secret_key, bucket=bucket)


@pytest.fixture
async def lane_store(s3_options: S3Options) -> AsyncGenerator[ObjectStore]:
    """An empty bucket of MinIO as the store."""
    async with open_s3(s3_options) as store:
        yield store
