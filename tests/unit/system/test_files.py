"""The one table from what the operating system says to our errors."""

import errno
import os
from pathlib import Path

import apsw
import pytest

from membridge.aio import threads
from membridge.claudemem.translate import translated as translated_database
from membridge.errors import (
    DatabaseInvalidError,
    DatabaseMissingError,
    DiskFullError,
    FileAccessError,
    MembridgeError,
)
from membridge.system.files import meaning, translated

HERE = Path("/somewhere/file")
FULL, FAILING, DENIED = (
    (errno.ENOSPC, errno.EDQUOT),
    (errno.EIO, errno.ENXIO, errno.EUCLEAN),
    (errno.EACCES, errno.EROFS),
)


def said(number: int) -> OSError:
    """Return what the operating system raises."""
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [*FULL, *FAILING, *DENIED])
def test_every_error_names_the_file_and_has_a_remedy(number: int) -> None:
    with pytest.raises(MembridgeError) as raised, translated(HERE):
        raise said(number)

    error = raised.value
    assert str(HERE) in error.message
    assert error.remedy
    assert isinstance(error, DiskFullError) == (number in FULL)
    assert ("dmesg" in error.remedy) == (number in FAILING)


@pytest.mark.parametrize(
    ("raised", "kind", "hint"),
    [
        (said(errno.ENOSPC), DiskFullError, "space"),
        (said(errno.EIO), FileAccessError, "dmesg"),
        (said(errno.EACCES), DatabaseInvalidError, "permissions"),
        (said(errno.ENOENT), DatabaseMissingError, ""),
        (apsw.FullError("database or disk is full"), DiskFullError, "space"),
        (apsw.IOError("disk I/O error"), FileAccessError, "dmesg"),
    ],
)
def test_a_databases_errors_are_of_the_same_table(
    tmp_path: Path, raised: Exception, kind: type[MembridgeError], hint: str
) -> None:
    with pytest.raises(kind) as error, translated_database(tmp_path / "claude-mem.db"):
        raise raised

    assert "claude-mem.db" in error.value.message
    assert hint in error.value.remedy


def test_without_a_name_the_error_gives_its_own() -> None:
    error = OSError(errno.EXDEV, "Invalid cross-device link", "/here", None, "/there")
    assert meaning(error).message == "/there: Invalid cross-device link"
    assert meaning(OSError(errno.EIO, "Input/output error", b"/bytes")).message == "/bytes: Input/output error"
    assert "Input/output error" in meaning(said(errno.EIO)).message


async def test_what_blocking_work_did_not_translate_is_translated(tmp_path: Path) -> None:
    def refused() -> None:
        raise ConnectionRefusedError

    with pytest.raises(FileAccessError, match="no-such-file: No such file"):
        await threads.run((tmp_path / "no-such-file").read_bytes)
    with pytest.raises(ConnectionRefusedError):
        await threads.run(refused)
