"""The installer is killed before each of its steps: what is precious stays, and the next run ends as if nothing was."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.install.machine import Machine, check_removal_at_each_kill, populate, precious, restore, tree

#: Parts of the steps, so that no test takes long and several run at once.
PARTS = 4

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("part", range(PARTS))
def test_after_a_kill_the_next_installation_succeeds_and_removal_leaves_the_tree_as_it_was(
    machine: Machine, built: dict[str, Path], environments: dict[str, Path], part: int
) -> None:
    before = populate(machine.home)
    kept = precious(machine.home)
    machine.ready(environments["1.0"])
    arguments = ("node", "--user", "--from", str(built["1.0"]))
    step = part + 1
    while machine.killed(step, *arguments):
        assert precious(machine.home) == kept
        if step % 3:
            ran = machine.run("uninstall", "--user")
            assert ran.returncode == 0 or "there is no receipt" in ran.stderr
        else:
            machine.done(*arguments)
            assert machine.prefix.joinpath("current/bin/membridge").exists()
            machine.done("uninstall", "--user")
        assert tree(machine.home) == before, step
        step += PARTS
    assert step > 20, "the steps were not counted"


@pytest.mark.parametrize("part", range(PARTS))
def test_an_upgrade_that_is_killed_leaves_a_version_that_runs(
    machine: Machine, built: dict[str, Path], environments: dict[str, Path], part: int
) -> None:
    populate(machine.home)
    kept = precious(machine.home)
    machine.ready(environments["1.0"])
    machine.done("node", "--user", "--from", str(built["1.0"]))
    machine.ready(environments["2.0"])
    saved = machine.folder / "saved"
    machine.home.rename(saved)
    step = part + 1
    while True:
        restore(saved, machine.home)
        if not machine.killed(step, "node", "--user", "--from", str(built["2.0"])):
            break
        assert precious(machine.home) == kept
        current = machine.prefix / "current"
        assert (current / "complete").exists(), step
        assert (current / "bin/membridge").exists()
        step += PARTS
    assert machine.prefix.joinpath("current").readlink().name == "2.0"


def test_a_removal_that_is_killed_is_finished_by_the_next(machine: Machine, install: Callable[..., str]) -> None:
    before = populate(machine.home)
    install()
    check_removal_at_each_kill(machine, before)


@pytest.mark.parametrize("mode", ["server", "all", "migrate", "cleanup"])
def test_no_mode_touches_what_is_precious_when_it_is_killed(
    machine: Machine, built: dict[str, Path], environments: dict[str, Path], mode: str
) -> None:
    populate(machine.home)
    kept = precious(machine.home)
    machine.ready(environments["1.0"])
    arguments = (mode, "--user", "--from", str(built["1.0"]))
    if mode == "cleanup":
        machine.done("node", *arguments[1:])
        machine.done("node", *arguments[1:])
    step = 1
    # One home through all of them, as that of somebody whose machine loses power again and again.
    while machine.killed(step, *arguments):
        assert precious(machine.home) == kept, step
        step += 1 if mode == "cleanup" else 5
    assert precious(machine.home) == kept
    assert step > (3 if mode == "cleanup" else 20)
