"""nkeys: made here, kept in files that only the owner reads; only the public key is ever sent."""

import os
from pathlib import Path

from membridge.errors import CredentialsError
from membridge.system import files


def provide_key(path: Path) -> str:
    """Return the public key of the seed in `path`, made if missing. Blocking; raises CredentialsError."""
    import nkeys  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs] - PyNaCl is loaded only where keys are used

    if not path.is_file():
        made = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)  # pyright: ignore[reportUnknownMemberType]
        files.save(path, made + b"\n")
    try:
        pair = nkeys.from_seed(bytearray(path.read_bytes().strip()))  # pyright: ignore[reportUnknownMemberType]
        return bytes(pair.public_key).decode()
    except OSError as error:
        raise files.meaning(error, path, otherwise=CredentialsError) from error
    except (ValueError, nkeys.ErrInvalidSeed) as error:
        raise CredentialsError(
            f"the key file {path} is damaged: it does not hold the nkey seed of a user",
            remedy="delete the file: the next start makes a new key",
        ) from error


def read_seed(path: Path) -> str:
    """Return the seed in `path`."""
    return path.read_text("ascii").strip()
