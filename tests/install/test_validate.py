"""`membridge validate` on an installation: what is wrong is named with its path, and the remedy mends it."""

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.install.machine import Machine

Install = Callable[..., str]


def checks(machine: Machine) -> dict[str, tuple[str, str, str]]:
    ran = machine.command("validate", "--json")
    found = json.loads(ran.stdout)["checks"]
    assert ran.returncode == 1, "no nats-server runs here"
    return {one["name"]: (one["finding"], one["detail"], one.get("remedy", "")) for one in found}


@pytest.fixture
def installed(machine: Machine, install: Install) -> Machine:
    install()
    return machine


def test_an_installation_as_it_should_be(installed: Machine) -> None:
    found = checks(installed)

    good = {name for name, (finding, _, _) in found.items() if finding == "ok"}
    assert good >= {"interpreter", "packages", "settings", "files", "versions", "membridge-node", "permissions"}
    assert found["nats"][0] == "fail"
    ran = subprocess.run(
        [installed.prefix / "current/bin/python", "-P", "-m", "membridge.validate_install", "--environment"],
        env=installed.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout


def mend(machine: Machine, remedy: str) -> None:
    """Do what a remedy says."""
    machine.shell_line(remedy.split("`")[1])


def test_a_changed_file_is_named_and_the_remedy_writes_it_again(installed: Machine) -> None:
    unit = installed.home / ".config/systemd/user/membridge-node.service"
    unit.write_text("[Service]\nExecStart=/bin/false\n")

    finding, detail, remedy = checks(installed)["files"]

    assert (finding, detail) == ("fail", f"{unit} was changed")
    mend(installed, remedy)
    assert checks(installed)["files"][0] == "ok"
    assert f"ExecStart={installed.prefix}/current/bin/membridge node" in unit.read_text()


def test_a_missing_file_is_named(installed: Machine) -> None:
    (installed.home / ".config/systemd/user/membridge-node.service").unlink()

    finding, detail, _ = checks(installed)["files"]

    assert finding == "fail"
    assert "membridge-node.service" in detail


def test_a_service_that_does_not_run_is_named_with_its_command(installed: Machine) -> None:
    (installed.calls / "bad").write_text("1.0\n")

    finding, _, remedy = checks(installed)["membridge-node"]

    assert finding == "fail"
    assert "systemctl --user restart membridge-node" in remedy


def test_a_program_that_others_may_write_is_named_and_the_remedy_closes_it(installed: Machine) -> None:
    launcher = installed.home / ".local/bin/membridge"
    launcher.chmod(0o777)

    finding, detail, remedy = checks(installed)["permissions"]

    assert (finding, detail) == ("fail", f"{launcher}: others may write it, and it is run")
    mend(installed, remedy)
    assert checks(installed)["permissions"][0] == "ok"


def test_what_a_killed_installer_left_is_named_and_the_remedy_removes_it(installed: Machine) -> None:
    (installed.prefix / "versions" / "9.0").mkdir()

    finding, detail, remedy = checks(installed)["versions"]

    assert (finding, detail) == ("warn", "unused environments: 9.0")
    mend(installed, remedy)
    assert checks(installed)["versions"][0] == "ok"


def test_settings_that_cannot_be_read_are_a_line_and_keep_a_new_version_out(
    installed: Machine, built: dict[str, Path]
) -> None:
    config = installed.home / ".config/membridge/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[node]\nidd = 1\n")

    assert checks(installed)["settings"][:2] == (
        "fail",
        f"node.idd in {config} is not a setting: did you mean node.id?",
    )
    ran = installed.run("node", "--user", "--from", str(built["2.0"]))
    assert (ran.returncode, installed.current()) == (1, "1.0")


def test_the_remedies_are_lines_of_a_shell(installed: Machine) -> None:
    (installed.home / ".config/systemd/user/membridge-node.service").unlink()

    for _, _, remedy in checks(installed).values():
        for line in remedy.split("`")[1::2]:
            assert shlex.split(line)
