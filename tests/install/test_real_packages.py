"""The whole environment as a user gets it: every package of the lock file, as wheels, by its checksum."""

import os
from pathlib import Path

import pytest

from tests.install import wheels
from tests.install.machine import Machine

#: How this machine reaches its package index, and where it keeps what it downloaded.
REACHES = ("PIP_", "UV_", "SSL_", "REQUESTS_", "HTTP_", "HTTPS_", "NO_PROXY", "http", "no_proxy")


@pytest.mark.real
def test_the_lock_file_is_installed_and_everything_of_it_works(machine: Machine, tmp_path: Path) -> None:
    del machine.environment["PYTHONPATH"]
    wheel = wheels.build(tmp_path)
    reach = {name: value for name, value in os.environ.items() if name.startswith(REACHES)}

    machine.done("node", "--user", "--from", str(wheel), seconds=500, **reach)

    validated = machine.command("validate", "--environment")
    assert validated.returncode == 0, validated.stdout
    assert validated.stdout.endswith("all is well\n")
    machine.done("uninstall", "--user")
