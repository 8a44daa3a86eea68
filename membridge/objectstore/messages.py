"""Messages of the object store in NATS, and what the bus says of them as errors of a store."""

import base64
from collections.abc import Generator
from contextlib import contextmanager

import msgspec

from membridge.errors import (
    CredentialsError,
    DiskFullError,
    InvalidRequestError,
    NotFoundError,
    ObjectExistsError,
    RevisionMovedError,
    StoreUnavailableError,
    UnavailableError,
)

#: The layout's usual size of a chunk.
CHUNK = 128 << 10


class _Options(msgspec.Struct):
    max_chunk_size: int = CHUNK


class Meta(msgspec.Struct, omit_defaults=False):
    """The meta message of an object, as the Object Store's layout (ADR-20) has it."""

    name: str
    bucket: str
    nuid: str
    size: int
    chunks: int
    mtime: str = ""
    digest: str = ""
    deleted: bool = False
    options: _Options = msgspec.field(default_factory=_Options)


def decoded(body: bytes) -> Meta | None:
    """Return a meta message, None for a body that is not one."""
    try:
        return msgspec.json.decode(body, type=Meta)
    except msgspec.DecodeError:
        return None


def digest_text(raw: bytes) -> str:
    """Return a sha256 as the layout spells it."""
    return f"SHA-256={base64.urlsafe_b64encode(raw).decode()}"


@contextmanager
def translated(what: str) -> Generator[None]:
    """Raise what the bus raises in the body as an error of an object store."""
    try:
        yield
    except RevisionMovedError as error:
        raise ObjectExistsError(f"{what}: the key is taken") from error
    except DiskFullError as error:
        raise DiskFullError(
            f"{what}: the object store is full", remedy="raise max_file_store in nats-server.conf, or use an S3"
        ) from error
    except (UnavailableError, NotFoundError, InvalidRequestError, CredentialsError) as error:
        raise StoreUnavailableError(error.message) from error
