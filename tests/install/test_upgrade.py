"""`membridge upgrade`: from a wheel, from a package index that is a folder, and back when the new version fails."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.install.machine import Machine

Install = Callable[..., str]


@pytest.fixture(params=["uv", "pip"])
def index(request: pytest.FixtureRequest, machine: Machine, built: dict[str, Path], tmp_path: Path) -> Path:
    """A folder that is the package index of the machine, with the version 1.0."""
    if request.param == "pip":
        (machine.programs / "uv").unlink()
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / built["1.0"].name).symlink_to(built["1.0"])
    machine.environment |= {
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "UV_OFFLINE": "1", "UV_FIND_LINKS": str(folder),
    }  # fmt: skip
    return folder


def test_the_index_is_asked_and_a_newer_version_installed(
    machine: Machine, built: dict[str, Path], index: Path
) -> None:
    machine.done("node", "--user", "--version", "1.0")
    assert machine.command("upgrade").stdout == "membridge 1.0 runs, and the package index has nothing newer\n"
    (index / built["2.0"].name).symlink_to(built["2.0"])

    checked = machine.command("upgrade", "--check")

    assert "`membridge upgrade` installs it" in checked.stdout
    assert machine.current() == "1.0"
    ran = machine.command("upgrade")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("upgraded from 1.0 to 2.0\n")
    assert machine.command("--version").stdout == "membridge 2.0\n"
    assert not machine.command("upgrade", "--check", "--json").stdout.count('"newer":true')


def test_a_wheel_is_named(machine: Machine, install: Install, built: dict[str, Path]) -> None:
    install("1.0")

    ran = machine.command("upgrade", "--from", str(built["2.0"]), "--json")

    assert json.loads(ran.stdout) == {
        "installed": "1.0", "newest": "2.0", "newer": True, "source": str(built["2.0"]), "upgraded": True,
    }  # fmt: skip
    assert machine.current() == "2.0"


def test_a_version_that_does_not_start_leaves_the_old_one_running(
    machine: Machine, install: Install, built: dict[str, Path]
) -> None:
    install("1.0")
    (machine.calls / "bad").write_text("2.0\n")

    ran = machine.command("upgrade", "--from", str(built["2.0"]))

    assert ran.returncode == 1
    assert "version 2.0 does not start, so 1.0 runs again" in ran.stderr
    assert machine.command("--version").stdout == "membridge 1.0\n"


def test_a_source_that_is_gone_is_said(machine: Machine, built: dict[str, Path], tmp_path: Path) -> None:
    wheel = tmp_path / built["1.0"].name
    wheel.write_bytes(built["1.0"].read_bytes())
    machine.done("node", "--user", "--from", str(wheel))
    wheel.unlink()

    ran = machine.command("upgrade", "--check")

    assert ran.returncode == 1
    assert f"{wheel}, from where membridge was installed, is gone" in ran.stderr
    assert "membridge upgrade --from PATH" in ran.stderr
