"""Events that the system may not have: said once, tried again later, and at once when a place is missing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from membridge.system import event_source, file_events
from membridge.system.event_source import EventSource
from membridge.system.file_events import Names, Places
from membridge.system.logging import Logger

POLLED, WATCHED = "it is polled", "it is watched again"


class Log(Logger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__("membridge.test")
        self.said: list[tuple[str, str, object]] = []

    def debug(self, event: str, /, **fields: object) -> None:
        self.said.append(("debug", event, fields.get("reason")))

    def info(self, event: str, /, **fields: object) -> None:
        self.said.append(("info", event, fields["path"]))

    def warning(self, event: str, /, **fields: object) -> None:
        self.said.append(("warning", event, fields["reason"]))


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def source(log: Log) -> EventSource:
    return EventSource(log, polled=POLLED, watched=WATCHED, path="x")


def at(folder: Path) -> Callable[[], Places]:
    return lambda: {folder: Names(every=True)}


def refused(_places: Places) -> file_events.FileEvents:
    raise OSError("all watches are in use")


def test_they_are_opened_once_and_anew_where_the_places_moved(source: EventSource, log: Log, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert [source.renew(at(tmp_path)) for _ in range(2)] == [True, False]
    first = source.events
    assert [source.renew(at(other)) for _ in range(2)] == [True, False]
    assert source.events is not first
    (other / "file").touch()
    assert source.events is not None
    assert source.events.read()
    source.close()
    assert source.events is None
    assert log.said == []


def test_a_folder_that_was_made_anew_is_watched_anew(source: EventSource, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    source.renew(at(folder))
    folder.rmdir()
    assert source.events is not None
    source.events.read()
    with pytest.raises(FileNotFoundError):
        source.renew(at(folder))
    folder.mkdir()
    # At once: a missing place is no reason to wait.
    assert source.renew(at(folder))
    source.close()


def test_where_there_are_none_it_says_so_once_and_tries_again_later(
    source: EventSource, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(file_events, "open_events", refused)
        assert not source.renew(at(tmp_path))
    # Not before its time, though there would be some.
    assert not source.renew(at(tmp_path))
    assert source.events is None
    source.give_up("all watches are in use", until=0.0)
    assert source.renew(at(tmp_path))
    source.close()
    assert log.said == [
        ("warning", POLLED, "all watches are in use"), ("debug", POLLED, "all watches are in use"),
        ("info", WATCHED, "x"),
    ]  # fmt: skip


def test_it_tries_again_after_the_pause(source: EventSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_source, "TRY_AGAIN", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(file_events, "open_events", refused)
        assert not source.renew(at(tmp_path))
    assert source.renew(at(tmp_path))
    source.close()


def test_events_that_cannot_be_relied_upon_are_given_up_for_good(source: EventSource, log: Log, tmp_path: Path) -> None:
    source.renew(at(tmp_path))
    source.give_up("it changed without one", until=float("inf"))
    assert source.events is None
    assert not source.renew(at(tmp_path))
    assert log.said == [("warning", POLLED, "it changed without one")]
