"""Checks of the environment: a lock file with packages of other platforms, packages that do not load, dead programs."""

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from membridge import embedded
from membridge.embedded import nats_server
from membridge.errors import MembridgeError, SettingsError
from membridge.installation import environment
from membridge.settings import load
from schemas.node import Finding

CLICK = importlib.metadata.version("click")
HASH = " \\\n    --hash=sha256:00\n"


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Write the lock file of an installed package."""
    monkeypatch.setattr(embedded, "__file__", str(tmp_path / "__init__.py"))
    return lambda text: Path(tmp_path, "requirements.lock").write_text(text, "utf-8") and None


def test_this_environment_is_sound() -> None:
    checks = environment.environment(load({}, Path("/nowhere")))

    assert [(check.name, check.finding) for check in checks] == [
        (name, Finding.OK) for name in ("interpreter", "packages", "nats-server", "settings")
    ]


@pytest.mark.parametrize(
    ("text", "differs"),
    [
        (f"click=={CLICK}{HASH}", None),
        (f"click==0.1{HASH}", f"click {CLICK} instead of 0.1"),
        (f"no-such-package==1.0{HASH}", "no-such-package is missing"),
        (f"no-such-package==1.0 ; os == 'a'{HASH}", None),
        (f"click==0.1 ; os == 'a'{HASH}click=={CLICK} ; os != 'a'{HASH}", None),
        (f"click==0.1 ; os == 'a'{HASH}click==0.2 ; os == 'b'{HASH}", f"click {CLICK} instead of 0.1 or 0.2"),
    ],
)  # fmt: skip
def test_packages_are_compared_with_the_lock_file(lock: Callable[[str], None], text: str, differs: str | None) -> None:
    lock(text)

    check = environment.packages()

    if differs is None:
        assert check.finding is Finding.OK
    else:
        assert (check.finding, check.detail) == (Finding.WARN, f"other than the lock file says: {differs}")


def test_a_package_that_does_not_load_here_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "of_another_processor.so").write_bytes(b"\x7fELF")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(environment, "COMPILED", ("of_another_processor",))

    check = environment.packages()

    assert check.finding is Finding.FAIL
    assert check.detail.startswith("of_another_processor cannot be loaded: ")


@pytest.mark.parametrize(("text", "finding"), [("#!/bin/sh\necho nats-server: v2\n", "ok"), ("\x7fELF", "fail")])
def test_nats_server_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, finding: str) -> None:
    binary = tmp_path / "nats-server"
    binary.write_text(text)
    binary.chmod(0o755)
    monkeypatch.setattr(nats_server, "find_binary", lambda: binary)

    assert environment.nats_server().finding == finding


def test_settings_that_cannot_be_read_are_a_failure_with_its_sentence() -> None:
    error: MembridgeError = SettingsError("node.idd is not a setting", field="node.idd")

    check = environment.settings(error)

    assert (check.finding, check.detail) == (Finding.FAIL, "node.idd is not a setting")
    assert check.remedy == "see `membridge config reference`"
