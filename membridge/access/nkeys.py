"""Key files: made here, read by the owner only; only the public key is ever sent."""

from pathlib import Path

from membridge.bus import nkeys
from membridge.errors import CredentialsError
from membridge.system import files


def provide_key(path: Path) -> str:
    """Return the public key of the seed in `path`, made if missing. Blocking; raises CredentialsError."""
    if not path.is_file():
        files.save(path, f"{nkeys.new_key().seed}\n".encode())
    try:
        return nkeys.from_seed(path.read_bytes()).public
    except OSError as error:
        raise files.meaning(error, path, otherwise=CredentialsError) from error
    except ValueError as error:
        raise CredentialsError(
            f"the key file {path} is damaged: {error}", remedy="delete the file: the next start makes a new key"
        ) from error


def read_seed(path: Path) -> str:
    """Return the seed in `path`."""
    return path.read_text("ascii").strip()
