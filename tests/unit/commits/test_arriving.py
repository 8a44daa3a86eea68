"""Reading a file while it is written."""

import hashlib
import threading
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.commits.arriving import Arriving
from membridge.errors import DeadlineExceededError

CONTENT = bytes(range(256)) * 40


def arriving(path: Path, *, seconds: float = 30.0) -> Arriving:
    return Arriving(path, deadline=Deadline.after(seconds))


@pytest.mark.parametrize("sizes", [(1,) * 50, (7, 4096, 1, 3000), (len(CONTENT),), (len(CONTENT) - 1, 1, 1)])
def test_what_is_read_is_what_arrives_in_whatever_pieces(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    path = tmp_path / "object"
    reader, asked, read = arriving(path), threading.Semaphore(0), list[bytes]()

    def consume() -> None:
        for size in sizes:
            asked.release()
            read.append(reader.read(size))

    thread = threading.Thread(target=consume)
    thread.start()
    # The reader waits before there is a file.
    assert asked.acquire(timeout=10)
    with path.open("wb") as file:
        for start in range(0, len(CONTENT), 1000):
            file.write(CONTENT[start : start + 1000])
            file.flush()
            reader.grew()
    reader.end()
    thread.join(10)

    assert not thread.is_alive()
    whole = b"".join(read)
    assert whole == CONTENT[: sum(sizes)]
    assert [len(part) for part in read[:-1]] == list(sizes[:-1])
    assert reader.sha256() == hashlib.sha256(whole).hexdigest()


def test_a_file_that_ends_early_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(b"abc")
    reader = arriving(path)
    reader.end()

    assert [reader.read(2), reader.read(2), reader.read(2)] == [b"ab", b"c", b""]


def test_a_download_that_never_begins_is_nothing(tmp_path: Path) -> None:
    reader = arriving(tmp_path / "object")
    reader.end()

    assert reader.read(10) == b""
    assert reader.sha256() == hashlib.sha256().hexdigest()


def test_nobody_waits_beyond_the_deadline(tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceededError):
        arriving(tmp_path / "object", seconds=0.05).read(1)


def test_the_hash_is_of_what_was_read_and_not_of_what_the_file_is_later(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(b"damaged then")
    reader = arriving(path)
    first = reader.read(7)
    # A store that begins again writes the same file once more.
    path.write_bytes(b"correct then")
    reader.end()

    assert first + reader.read(100) == b"damaged then"
    assert reader.sha256() != hashlib.sha256(path.read_bytes()).hexdigest()
