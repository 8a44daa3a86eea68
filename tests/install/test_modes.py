"""Installation, upgrade, roll-back, cleanup and removal, over a home with what others keep there."""

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.install.machine import PROGRAM, Machine, populate, precious, tree

Install = Callable[..., str]


def test_a_node_is_installed_checked_and_started(machine: Machine, install: Install) -> None:
    populate(machine.home)
    before = precious(machine.home)

    said = install()

    assert machine.command("--version").stdout == "membridge 1.0\n"
    assert machine.asked() == [
        f"loginctl enable-linger {pwd.getpwuid(os.getuid()).pw_name}",
        "systemctl --user daemon-reload",
        "systemctl --user enable --quiet membridge-node",
        "systemctl --user restart membridge-node",
        "systemctl --user is-active --quiet membridge-node",
    ]
    unit = (machine.home / ".config/systemd/user/membridge-node.service").read_text("utf-8")
    assert f"\nExecStart={machine.prefix}/current/bin/membridge node\n" in unit
    assert "lingering is on now" in said
    assert precious(machine.home) == before


def test_pip_builds_the_environment_where_there_is_no_uv(machine: Machine, install: Install) -> None:
    (machine.programs / "uv").unlink()

    install()

    assert machine.command("--version").stdout == "membridge 1.0\n"


@pytest.mark.parametrize("mode", ["node", "server", "all"])
def test_uninstall_leaves_the_tree_as_it_was(machine: Machine, install: Install, mode: str) -> None:
    before = populate(machine.home)
    conf = machine.home / ".config/membridge/nats-server.conf"

    install("1.0", mode)
    assert conf.exists() == (mode != "node")
    machine.asked()
    planned = machine.done("uninstall", "--user", "--dry-run")
    assert machine.asked() == []
    done = machine.done("uninstall", "--user", script=machine.prefix / "install.sh")

    assert tree(machine.home) == before
    assert planned.replace("would ", "").splitlines()[:-2] == done.splitlines()[:-1]
    asked = machine.asked()
    assert "systemctl --user disable --quiet --now membridge-node" in asked or mode == "server"
    assert asked[-2].startswith("loginctl disable-linger ")


def test_an_empty_home_is_empty_again(machine: Machine, install: Install) -> None:
    install()
    machine.done("uninstall", "--user")

    assert tree(machine.home) == {}


@pytest.mark.parametrize("mode", ["node", "server", "all", "migrate"])
def test_a_dry_run_changes_nothing_and_names_what_would_be_written(
    machine: Machine, built: dict[str, Path], mode: str
) -> None:
    before = populate(machine.home)

    said = machine.done(mode, "--user", "--from", str(built["1.0"]), "--dry-run")

    assert tree(machine.home) == before
    assert machine.asked() == []
    machine.done(mode, "--user", "--from", str(built["1.0"]))
    new = {path for path, kind in tree(machine.home).items() if path not in before and not kind.startswith("folder")}
    unnamed = [
        path for path in new
        if "/versions/" not in path and path != ".local/share/membridge/receipt" and path.split("/")[-1] not in said
    ]  # fmt: skip
    assert unnamed == []


def test_an_upgrade_switches_and_keeps_the_version_before(machine: Machine, install: Install) -> None:
    install("1.0")
    install("2.0")
    assert (machine.current(), machine.command("--version").stdout) == ("2.0", "membridge 2.0\n")
    assert sorted(path.name for path in (machine.prefix / "versions").iterdir()) == ["1.0", "2.0"]

    install("2.0")

    assert machine.current() == "2.0-2"
    assert sorted(path.name for path in (machine.prefix / "versions").iterdir()) == ["2.0", "2.0-2"]


def test_a_version_that_does_not_work_here_is_never_switched_to(machine: Machine, built: dict[str, Path]) -> None:
    machine.done("node", "--user", "--from", str(built["1.0"]))
    machine.asked()
    before = {path: body for path, body in tree(machine.home).items() if not path.endswith("/receipt")}

    ran = machine.run("node", "--user", "--from", str(built["3.0"]))

    assert ran.returncode == 1
    assert "1.0 is still installed and was not touched" in ran.stderr
    assert {path: body for path, body in tree(machine.home).items() if not path.endswith("/receipt")} == before
    assert machine.asked() == []


def test_a_version_that_does_not_start_is_rolled_back(
    machine: Machine, install: Install, built: dict[str, Path]
) -> None:
    install("1.0")
    (machine.calls / "bad").write_text("2.0\n")
    machine.asked()

    ran = machine.run("node", "--user", "--from", str(built["2.0"]))

    assert ran.returncode == 1
    assert "version 2.0 does not start, so 1.0 runs again" in ran.stderr
    assert "journalctl --user -u membridge-node" in ran.stderr
    assert machine.current() == "1.0"
    assert machine.asked()[-3:] == [
        "systemctl --user enable --quiet membridge-node",
        "systemctl --user restart membridge-node",
        "systemctl --user is-active --quiet membridge-node",
    ]
    assert machine.command("--version").stdout == "membridge 1.0\n"
    assert not (machine.prefix / "versions" / "2.0").exists()


def test_cleanup_stops_the_services_and_keeps_all_else(machine: Machine, install: Install) -> None:
    populate(machine.home)
    install("1.0", "all")
    install("2.0", "all")
    machine.asked()
    before = tree(machine.home)
    planned = machine.done("cleanup", "--user", "--dry-run")
    assert tree(machine.home) == before

    done = machine.done("cleanup", "--user")

    after = tree(machine.home)
    assert {path for path in before if path not in after} == {
        path for path in before if path.startswith(".local/share/membridge/versions/1.0")
    }
    assert planned.replace("would ", "") == done
    assert [line for line in machine.asked() if line.startswith("systemctl --user stop ")] == [
        f"systemctl --user stop {name}"
        for name in ("membridge-node", "membridge-gateway", "membridge-coordinator", "membridge-nats")
    ]


def test_a_file_that_was_changed_since_is_kept(machine: Machine, install: Install) -> None:
    install()
    unit = machine.home / ".config/systemd/user/membridge-node.service"
    unit.write_text(unit.read_text() + "# mine\n")

    said = machine.done("uninstall", "--user")

    assert f"kept: {unit} was changed after the installation" in said
    assert unit.exists()


def test_a_file_of_somebody_else_is_put_back(machine: Machine, install: Install) -> None:
    unit = machine.home / ".config/systemd/user/membridge-node.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("by hand\n")
    before = tree(machine.home)

    install("1.0")
    assert "ExecStart" in unit.read_text()
    install("2.0")
    machine.done("uninstall", "--user")

    assert tree(machine.home) == before


def test_lingering_that_was_there_stays(machine: Machine, install: Install) -> None:
    (machine.calls / "lingers").touch()

    install()
    machine.done("uninstall", "--user")

    assert (machine.calls / "lingers").exists()


def test_without_a_service_manager_the_program_is_installed_and_the_way_to_run_it_said(
    machine: Machine, install: Install
) -> None:
    (machine.root / "run/systemd/system").rmdir()

    said = install()

    assert f"run it in the foreground: {machine.home}/.local/bin/membridge node\n" in said
    assert machine.asked() == []
    assert machine.command("--version").stdout == "membridge 1.0\n"


def test_the_command_says_that_its_python_is_gone_and_the_remedy_works(machine: Machine, install: Install) -> None:
    install()
    python = machine.prefix / "current/bin/python"
    python.unlink()
    python.symlink_to("/usr/bin/python3.0")

    ran = machine.command("status")

    assert ran.returncode == 1
    assert "the Python that Membridge was installed with is gone" in ran.stderr
    remedy = ran.stderr.split("remedy: sh ")[1].split()
    machine.done(*remedy[1:], script=Path(remedy[0]))
    assert machine.command("--version").stdout == "membridge 1.0\n"


def test_two_installers_at_once_are_refused(machine: Machine, install: Install, built: dict[str, Path]) -> None:
    install()
    lock = machine.prefix / "lock"
    lock.mkdir()
    (lock / "pid").write_text("1\n")

    ran = machine.run("node", "--user", "--from", str(built["2.0"]))

    assert (ran.returncode, machine.current()) == (1, "1.0")
    assert "another installer is at work: process 1" in ran.stderr
    (lock / "pid").write_text("4194305\n")
    install("2.0")
    assert (machine.current(), lock.exists()) == ("2.0", False)


def test_a_version_that_a_killed_upgrade_switched_to_is_not_gone_back_to(
    machine: Machine, install: Install, built: dict[str, Path]
) -> None:
    install("1.0")
    machine.program("systemctl", '#!/bin/sh\nkill -9 "$PPID"\n')
    assert machine.run("node", "--user", "--from", str(built["2.0"])).returncode == -9
    assert machine.current() == "2.0"
    machine.program("systemctl", PROGRAM)
    (machine.calls / "bad").write_text("2.0-2\n")

    ran = machine.run("node", "--user", "--from", str(built["2.0"]))

    assert "version 2.0 does not start, so 1.0 runs again" in ran.stderr
    assert machine.current() == "1.0"
