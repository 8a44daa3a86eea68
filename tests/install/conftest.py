"""What the tests of the installer get: wheels of several versions, and machines to install them on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.install import wheels
from tests.install.machine import Machine


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels `1.0`, `2.0`, and `3.0`, which cannot be imported whole."""
    folder = tmp_path_factory.mktemp("wheels")
    wheel = wheels.build(folder)
    found = {version: wheels.variant(wheel, version, folder) for version in ("1.0", "2.0")}
    return {**found, "3.0": wheels.variant(wheel, "3.0", folder, broken=True)}


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What membridge needs, without membridge."""
    return wheels.dependencies(tmp_path_factory.mktemp("packages") / "site")


@pytest.fixture
def machine(tmp_path: Path, packages: Path) -> Machine:
    """A machine with systemd and uv, and an empty home."""
    return Machine(tmp_path / "machine", packages)


@pytest.fixture
def install(machine: Machine, built: dict[str, Path]) -> Callable[..., str]:
    """Install a version on the machine, by default the node of 1.0."""

    def run(version: str = "1.0", mode: str = "node", *options: str) -> str:
        return machine.done(mode, "--user", "--from", str(built[version]), *options)

    return run


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory, packages: Path, built: dict[str, Path]) -> dict[str, Path]:
    """The environments that the installer builds of `1.0` and `2.0`."""
    found: dict[str, Path] = {}
    for version in ("1.0", "2.0"):
        machine = Machine(tmp_path_factory.mktemp("ready") / "machine", packages)
        machine.done("node", "--user", "--from", str(built[version]))
        found[version] = machine.prefix / "versions" / version
    return found
