"""The doctor's line about hooks names what is wrong with the spool or the plugin, and a remedy that ends it."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from membridge.claudecode import installation
from membridge.claudecode.place import Place
from membridge.claudecode.plugin import PATHS_JSON, SHIPPED, Reach
from membridge.hooks.paths import HookPaths, hook_paths, make_spool
from membridge.node import hooks_check
from membridge.settings import Settings, load
from schemas.node import Check, Finding
from tests.fixtures.hooks import leave


@dataclass(frozen=True)
class Machine:
    settings: Settings
    place: Place
    paths: HookPaths

    def check(self) -> Check:
        return hooks_check.check(self.settings)

    def install(self, **changed: object) -> None:
        paths = self.paths
        reach = Reach(paths.spool, paths.run, 5.0)
        installation.install(self.place, SHIPPED, replace(reach, **changed), into_settings=False, replace_old=False)  # type: ignore[arg-type]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "claude"))
    (tmp_path / ".claude-mem").mkdir()
    settings = load({}, tmp_path)
    paths = hook_paths(settings.node.state_dir)
    make_spool(paths)
    return Machine(settings, Place(tmp_path / "claude", settings.node.state_dir), paths)


def test_a_machine_without_hooks_is_sound(machine: Machine) -> None:
    assert machine.check().finding is Finding.OK
    assert "`membridge install hooks`" in machine.check().detail


def test_fresh_hooks_and_an_event_that_has_just_come_are_sound(machine: Machine) -> None:
    machine.install()
    leave(machine.paths, "Stop")
    assert machine.check().finding is Finding.OK


def test_a_spool_that_nothing_reads_is_reported_until_it_is_empty(machine: Machine) -> None:
    left = leave(machine.paths, "Stop")
    os.utime(left, (1_700_000_000, 1_700_000_000))
    found = machine.check()
    assert found.finding is Finding.WARN
    assert "1 session events wait" in found.detail
    assert "2023-11-1" in found.detail
    left.unlink()
    assert machine.check().finding is Finding.OK


def test_a_spool_that_is_nearly_full_is_reported(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks_check, "MOST_FILES", 10)
    for _ in range(9):
        leave(machine.paths, "Stop")
    assert machine.check().finding is Finding.WARN
    assert "9 session events wait" in machine.check().detail


@pytest.mark.parametrize("what", ["dropped", "damaged"])
def test_the_remedy_for_what_was_dropped_or_damaged_ends_the_warning(machine: Machine, what: str) -> None:
    if what == "dropped":
        machine.paths.dropped.write_text("7")
    else:
        machine.paths.damaged.mkdir()
        (machine.paths.damaged / "one").touch()
    found = machine.check()
    assert found.finding is Finding.WARN
    command = found.remedy.split("`")[1]
    assert os.system(command) == 0  # noqa: S605 - the remedy is what is tested
    assert machine.check().finding is Finding.OK


BROKEN: dict[str, Callable[[Machine], None]] = {
    "another folder of questions": lambda machine: machine.install(run=Path("/elsewhere/run")),
    "another wait_seconds": lambda machine: machine.install(wait_seconds=3.0),
    "of another version": lambda machine: _change(machine, "event.sh", b"old"),
    "is incomplete": lambda machine: (machine.place.plugin / PATHS_JSON).unlink(),
}


def _change(machine: Machine, name: str, content: bytes) -> None:
    (machine.place.plugin / name).write_bytes(content)


@pytest.mark.parametrize("detail", BROKEN)
def test_a_plugin_that_does_not_fit_is_reported_and_installing_it_again_mends_it(machine: Machine, detail: str) -> None:
    machine.install()
    BROKEN[detail](machine)
    found = machine.check()
    assert (found.finding, found.remedy) == (Finding.WARN, "run `membridge install hooks`")
    assert detail in found.detail
    machine.install()
    assert machine.check().finding is Finding.OK
