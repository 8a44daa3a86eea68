"""The programs that `deploy/install.ps1` runs, in its order and with its arguments, run here: pip, venv, and ours.

The test reads the steps of `Add-Version` from the syntax tree and plays PowerShell: it fills in the variables, and an
environment of this system has the folders of one on Windows as links.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from tests.install.test_windows_script import SCRIPT, functions, of_type, parsed, text_of
from tests.unit.installation.test_windows_client import OWN_PATH, TextPath

#: Seconds for one step: pip unpacks a wheel.
STEP = 120
_WORD = re.compile(r"'([^']*)'|\$(\w+(?:\.FullName)?)")


def steps() -> list[tuple[str, str]]:
    """Return each program that `Add-Version` runs, and its arguments as they are written."""
    body = functions(parsed(SCRIPT.read_bytes()))["Add-Version"]
    commands = [text_of(one) for one in of_type(body, "command")]
    found = (re.fullmatch(r"Invoke-Program -Program \$(\w+) -Arguments (.+)", one) for one in commands)
    return [(one[1], one[2]) for one in found if one]


def loaded(file: str) -> ModuleType:
    """Return the module in a file, as the version has it that was installed."""
    spec = importlib.util.spec_from_file_location("installed_client", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # It runs as a script, of which Python keeps nothing compiled beside it.
        patch.setattr(sys, "dont_write_bytecode", True)
        spec.loader.exec_module(module)
    return module


@dataclass
class PowerShell:
    """The variables of `Add-Version` and what ran; `path` is the user's PATH."""

    prefix: Path
    wheel: Path
    packages: Path
    path: TextPath = field(default_factory=TextPath)
    ran: list[str] = field(default_factory=list[str])
    name: str = ""

    def values(self, written: str) -> list[str]:
        """Return the arguments that PowerShell would give: quoted text, and variables by their value."""
        environment = self.prefix / "versions" / (self.name or "?")
        package = environment / "Lib" / "site-packages" / "membridge"
        (pip,) = re.findall(r"^    \$pip = (.+)$", SCRIPT.read_text("ascii"), re.MULTILINE)
        values = {
            "pip": _WORD.findall(pip),
            "work": str(self.prefix / "work"), "What": str(self.wheel), "environment": str(environment),
            "wheel.FullName": str(next((self.prefix / "work").glob("membridge-*.whl"), "")),
            "lockFile": str(package / "embedded" / "requirements.lock"),
            "client": str(package / "installation" / "windows_client.py"), "Prefix": str(self.prefix),
            "name": self.name,
        }  # fmt: skip
        given: list[str] = []
        for literal, variable in _WORD.findall(written):
            value = values[variable] if variable else literal
            given += [word for word, _ in value] if isinstance(value, list) else [value]
        return given

    def install(self) -> int:
        """Run all steps until one fails, then what `finally` does; return the exit code of the last."""
        self.prefix.mkdir(exist_ok=True)
        code = 0
        for program, written in steps():
            code = self._run(program, self.values(written))
            if code:
                break
            if " wheel " in self.ran[-1]:
                (found,) = (self.prefix / "work").iterdir()
                self.name = found.name.split("-")[1]
        for left in (self.prefix / "versions").iterdir():
            if not (left / "complete").exists():
                shutil.rmtree(left)
        shutil.rmtree(self.prefix / "work")
        return code

    def _run(self, program: str, given: list[str]) -> int:
        self.ran.append(" ".join(one for one in given if not one.startswith("/")))
        if "activate" in given:
            assert given[0] == "-I"
            return int(loaded(given[1]).main(given[2:], self.path))
        if given[-1] == "validate":
            given.append("--environment")  # a client's; here it would look for a node
        environment = self.prefix / "versions" / self.name
        python = {"Python": sys.executable, "own": str(environment / "bin" / "python")}[program]
        done = subprocess.run(
            [python, *given], capture_output=True, text=True, check=False, timeout=STEP, stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.prefix.parent), "PYTHONPATH": str(self.packages)},
        )  # fmt: skip
        if "venv" in given:
            (environment / "Lib").mkdir()
            (site,) = (environment / "lib").glob("python*/site-packages")
            (environment / "Lib" / "site-packages").symlink_to(site)
        return done.returncode


@pytest.fixture
def shell(tmp_path: Path, built: dict[str, Path], packages: Path) -> PowerShell:
    return PowerShell(tmp_path / "Membridge", built["1.0"], packages)


def test_it_reads_all_steps_of_the_script() -> None:
    text = SCRIPT.read_text("ascii")
    body = text[text.index("function Add-Version") : text.index("function Clear-Unfinished")]

    assert len(steps()) == body.count("Invoke-Program ") == 6


def test_two_versions_are_installed_a_broken_one_is_not_and_all_goes_again(
    shell: PowerShell, built: dict[str, Path]
) -> None:
    quiet = "-P -m pip --disable-pip-version-check --no-cache-dir --quiet"

    assert shell.install() == 0

    assert shell.ran == [
        f"{quiet} wheel --no-deps --only-binary=:all: --wheel-dir",
        "-P -m venv",
        f"{quiet} install --no-deps",
        f"{quiet} install --no-deps --only-binary=:all: --require-hashes --requirement",
        "-P -m membridge.cli.main validate",
        "-I activate 1.0",
    ]
    assert (shell.prefix / "install.ps1").read_bytes() == SCRIPT.read_bytes()
    shell.wheel = built["2.0"]
    assert shell.install() == 0
    runs(shell, "2.0")
    shell.wheel, shell.ran = built["3.0"], []
    assert shell.install() == 1
    assert shell.ran[-1] == "-P -m membridge.cli.main validate"
    runs(shell, "2.0")
    own = str(shell.prefix / "windows_client.py")
    assert loaded(own).main(["uninstall", str(shell.prefix)], shell.path) == 0
    assert (shell.prefix.exists(), shell.path.value) == (False, OWN_PATH)


def runs(shell: PowerShell, version: str) -> None:
    """The version runs, the one before it is there, and PATH has the command once."""
    assert (shell.prefix / "current").read_text("ascii") == f"{version}\n"
    assert {one.name for one in (shell.prefix / "versions").iterdir()} == {"1.0", "2.0"}
    assert shell.path.value == f"{OWN_PATH};{shell.prefix / 'bin'}"
