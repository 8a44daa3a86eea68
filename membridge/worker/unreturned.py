"""Leases that a stop could not hand back because no coordinator answered: kept in a file for the next start.

Without it the coordinator would find the tasks lost with the worker, and count an attempt for each.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from membridge.aio import threads
from membridge.errors import MembridgeError
from membridge.system import files
from membridge.system.logging import get_logger
from schemas.leases import LeaseClaim

log = get_logger("membridge.worker")


class Unreturned:
    """The file of these leases. If it cannot be read or written, each task loses an attempt and nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> list[LeaseClaim]:
        """Return the leases that an earlier process left."""
        return await threads.run(self._read)

    async def write(self, claims: Iterable[LeaseClaim]) -> None:
        """Keep these leases and no others."""
        try:
            await threads.run(self._write, list(claims))
        except MembridgeError as error:
            log.warning("leases to hand back later cannot be noted", path=str(self._path), reason=error.message)

    def _read(self) -> list[LeaseClaim]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[LeaseClaim])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("leases to hand back cannot be read", path=str(self._path), reason=str(error))
            return []

    def _write(self, claims: list[LeaseClaim]) -> None:
        if claims:
            files.save(self._path, msgspec.json.encode(claims))
        else:
            with files.translated(self._path):
                self._path.unlink(missing_ok=True)
