"""The object store from the settings: JetStream or an S3, encrypted or not."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from membridge.bus.connection import Bus
from membridge.errors import BusUnavailableError, SettingsError
from membridge.objectstore.encryption.guard import PlainStore
from membridge.objectstore.encryption.keys import KeySource
from membridge.objectstore.jetstream import BUCKET, open_jetstream
from membridge.objectstore.protocol import ObjectStore
from membridge.objectstore.s3.client import S3Options, open_s3
from membridge.settings import Settings, StoreKind


@asynccontextmanager
async def open_store(bus: Bus | None, settings: Settings, *, bucket: str = BUCKET) -> AsyncGenerator[ObjectStore]:
    """Open the object store that the settings name, encrypted if they say so.

    `bucket` is the one of a store in NATS; that of an S3 is in the settings. Without a bus only an S3 can be opened.
    Errors: BusUnavailableError, SettingsError, and those of the store.
    """
    async with open_backend(bus, settings, bucket=bucket) as opened:
        if not settings.store.encrypted:
            yield PlainStore(opened)
            return
        from membridge.objectstore.encryption.store import EncryptedStore  # noqa: PLC0415 - it loads the cipher

        yield EncryptedStore(opened, key_source(settings))


def key_source(settings: Settings) -> KeySource:
    """Return the settings' source of this node's keys."""
    passphrase = settings.store.encryption_passphrase
    return KeySource(
        file=settings.store.encryption_key_file, passphrase=passphrase.reveal() if passphrase is not None else None
    )


@asynccontextmanager
async def open_backend(bus: Bus | None, settings: Settings, *, bucket: str = BUCKET) -> AsyncGenerator[ObjectStore]:
    """Open the object store that the settings name, without encryption."""
    store = settings.store
    if store.backend is StoreKind.JETSTREAM:
        if bus is None:
            raise BusUnavailableError("snapshots are stored in NATS, which cannot be reached")
        # A node with a key of its own may not purge; the account's operator does.
        purges = settings.nats.keys_dir is None
        async with open_jetstream(bus, bucket=bucket, replicas=settings.nats.replicas, purges=purges) as opened:
            yield opened
        return
    if store.endpoint is None or store.access_key is None or store.secret_key is None:
        raise SettingsError(
            "the S3 store needs MINIO_ENDPOINT, MINIO_ACCESS_KEY and MINIO_SECRET_KEY",
            remedy="set them, or MEMBRIDGE_STORE=jetstream to keep snapshots in NATS",
            field="store",
        )
    options = S3Options(
        endpoint=store.endpoint,
        access_key=store.access_key.reveal(),
        secret_key=store.secret_key.reveal(),
        bucket=store.bucket,
        region=store.region,
        ca_file=store.ca_file,
    )
    async with open_s3(options) as opened:
        yield opened
