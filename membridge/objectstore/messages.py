"""Messages of the object store in NATS, and the bus's errors as errors of a store."""

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
    """The meta message of an object in the Object Store's layout (ADR-20)."""

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
    """Return a sha256 in the layout's form."""
    return f"SHA-256={base64.urlsafe_b64encode(raw).decode()}"


@contextmanager
def translated(what: str) -> Generator[None]:
    """Raise the bus's errors in the body as errors of an object store."""
    try:
        yield
    except RevisionMovedError as error:
        raise ObjectExistsError(f"{what}: another writer stored that object first") from error
    except DiskFullError as error:
        raise DiskFullError(
            f"{what}: the object store in NATS is full",
            remedy="free disk space where nats-server runs, raise max_file_store in its nats-server.conf, or use S3",
        ) from error
    except (UnavailableError, NotFoundError, InvalidRequestError, CredentialsError) as error:
        raise StoreUnavailableError(error.message) from error
