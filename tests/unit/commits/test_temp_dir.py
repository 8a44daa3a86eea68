"""Temporary folders: of one's own, gone afterwards, and what a killed process left is removed by the next."""

import asyncio
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from membridge.commits import temp_dir
from membridge.commits.replica import Replica

HOLD = """
import asyncio, sys
from pathlib import Path
from types import SimpleNamespace
from membridge.commits.temp_dir import temp_dir

async def hold():
    async with temp_dir(SimpleNamespace(folder=Path(sys.argv[1]))) as folder:
        (folder / "state.db").write_bytes(b"half")
        print(folder, flush=True)
        await asyncio.Event().wait()

asyncio.run(hold())
"""


@dataclass(frozen=True)
class Home:
    """What a temporary folder asks of a replica."""

    folder: Path


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def content(folder: Path) -> list[Path]:
    """What is in a folder."""
    return list(folder.iterdir())


def replica(folder: Path) -> Replica:
    return cast("Replica", Home(folder))


async def test_a_folder_is_there_for_the_body_alone(tmp_path: Path) -> None:
    async with temp_dir.temp_dir(replica(tmp_path)) as folder:
        (folder / "state.db").write_bytes(b"state")
        assert content(tmp_path) == [folder]
    assert content(tmp_path) == []


async def test_two_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    async with temp_dir.temp_dir(replica(tmp_path)) as one, temp_dir.temp_dir(replica(tmp_path)) as other:
        assert one != other
        temp_dir.sweep(tmp_path)
        assert one.exists()
        assert other.exists()


async def test_what_a_killed_process_left_goes_and_what_one_uses_stays(tmp_path: Path) -> None:
    async with asyncio.timeout(20):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", HOLD, str(tmp_path), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        folder = Path((await process.stdout.readline()).decode().strip())
        temp_dir.sweep(tmp_path)
        assert (folder / "state.db").read_bytes() == b"half"
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert content(tmp_path) == [folder]
    temp_dir.sweep(tmp_path)
    assert content(tmp_path) == []


async def test_a_folder_that_a_sweep_took_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, raced = temp_dir._locked, list[Path]()

    def late(folder: Path) -> int:
        if not raced:
            raced.append(folder)
            temp_dir.sweep(tmp_path)
            assert not folder.exists()
        return locked(folder)

    monkeypatch.setattr(temp_dir, "_locked", late)
    before = descriptors()
    async with temp_dir.temp_dir(replica(tmp_path)) as folder:
        assert folder.exists()
    assert raced == [folder]
    assert descriptors() == before
