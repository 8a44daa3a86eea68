"""What `install.ps1` lets Python do: the switch to a version, the command, PATH and the receipt; killed at each step.

The tree is what an installation on Windows has, and the PATH a text; the registry itself is in the last tests.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest

from membridge.installation import windows_client
from membridge.installation.windows_client import Client, Registry, main, with_folder, without_folder

ROOT = Path(__file__).parents[3]
MODULE = Path(windows_client.__file__)
#: A user's own PATH, which has a variable in it.
OWN_PATH = r"%USERPROFILE%\bin;C:\Tools"


@dataclass
class TextPath:
    """A PATH; `fails` is raised by the next write."""

    value: str = OWN_PATH
    fails: OSError | None = None
    written: int = 0

    def read(self) -> str:
        return self.value

    def write(self, value: str) -> None:
        if self.fails is not None:
            raise self.fails
        self.value, self.written = value, self.written + 1


@dataclass
class Machine:
    """A profile with a folder for the client, whatever else is in it, and its PATH."""

    profile: Path
    path: TextPath = field(default_factory=TextPath)

    @property
    def prefix(self) -> Path:
        return self.profile / "Membridge"

    def build(self, name: str) -> None:
        """Make an environment as pip leaves it."""
        package = self.prefix / "versions" / name / "Lib" / "site-packages" / "membridge"
        for file in (MODULE, ROOT / "deploy" / "install.ps1"):
            folder = package / ("embedded" if file.suffix == ".ps1" else "installation")
            folder.mkdir(parents=True)
            (folder / file.name).write_bytes(file.read_bytes())
        (self.prefix / "versions" / name / "Scripts").mkdir()
        (self.prefix / "versions" / name / "Scripts" / "membridge.exe").write_bytes(b"MZ")

    def do(self, *arguments: str) -> int:
        return main([arguments[0], str(self.prefix), *arguments[1:]], self.path)

    def install(self, name: str) -> int:
        self.build(name)
        return self.do("activate", name)

    def clear_unfinished(self) -> None:
        """Do what `Clear-Unfinished` of the script does."""
        for one in (self.prefix / "versions").iterdir():
            if not (one / "complete").exists():
                shutil.rmtree(one)

    def versions(self) -> set[str]:
        return {one.name for one in (self.prefix / "versions").iterdir()}

    def running(self) -> str:
        return (self.prefix / "current").read_text("ascii")

    def tree(self) -> dict[str, bytes]:
        return {str(one): one.read_bytes() for one in self.profile.rglob("*") if one.is_file()}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    embedded = tmp_path / "package" / "membridge" / "embedded"
    embedded.mkdir(parents=True)
    (embedded / "install.ps1").write_bytes((ROOT / "deploy" / "install.ps1").read_bytes())
    own = tmp_path / "package" / "membridge" / "installation" / MODULE.name
    own.parent.mkdir()
    own.write_bytes(MODULE.read_bytes())
    monkeypatch.setattr(windows_client, "__file__", str(own))
    made = Machine(tmp_path / "profile")
    made.profile.mkdir()
    (made.profile / "other.txt").write_text("somebody else's")
    return made


def test_the_first_version_runs_and_is_in_the_path_once(machine: Machine) -> None:
    assert machine.install("0.1.0") == 0

    assert machine.running() == "0.1.0\n"
    assert (machine.prefix / "current").read_bytes() == b"0.1.0\r\n"
    folder = str(machine.prefix / "bin")
    assert machine.path.value == f"{OWN_PATH};{folder}"
    receipt = json.loads((machine.prefix / "receipt.json").read_text("utf-8"))
    assert receipt == {
        "versions": ["0.1.0"], "files": ["bin/membridge.cmd", "install.ps1", "windows_client.py"],
        "path_entry": folder, "format": 1,
    }  # fmt: skip
    assert machine.install("0.2.0") == 0
    assert machine.path.value.count(folder) == 1


def test_the_command_is_ascii_finds_what_runs_and_passes_its_exit_code_on(machine: Machine) -> None:
    machine.install("0.1.0")

    text = (machine.prefix / "bin" / "membridge.cmd").read_bytes()

    lines = text.decode("ascii").split("\r\n")
    assert b"\n" not in text.replace(b"\r\n", b"")
    assert lines[-3:] == [r'"%~dp0..\versions\%_membridge%\Scripts\membridge.exe" %*', "exit /b %errorlevel%", ""]
    assert r'if exist "%~dp0..\current" set /p _membridge=<"%~dp0..\current"' in lines


def test_the_version_before_stays_and_older_ones_go(machine: Machine) -> None:
    for name in ("0.1.0", "0.2.0", "0.3.0"):
        assert machine.install(name) == 0

    assert (machine.running(), machine.versions()) == ("0.3.0\n", {"0.2.0", "0.3.0"})


def test_an_environment_in_use_stays_whole_until_the_next_time(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename
    machine.install("0.1.0")
    machine.install("0.2.0")

    def refused(self: Path, target: Path) -> Path:
        raise PermissionError(13, "The process cannot access the file", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refused)
        assert machine.install("0.3.0") == 0
    assert machine.versions() == {"0.1.0", "0.2.0", "0.3.0"}
    assert (machine.prefix / "versions" / "0.1.0" / "complete").exists()
    assert Path.rename is rename
    assert machine.install("0.4.0") == 0
    assert machine.versions() == {"0.3.0", "0.4.0"}


def test_a_failure_leaves_what_ran_before(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.install("0.1.0")
    machine.path = TextPath(fails=PermissionError(13, "the registry refuses"))

    assert machine.install("0.2.0") == 1

    assert "the registry refuses" in capsys.readouterr().err
    assert machine.running() == "0.1.0\n"
    assert not (machine.prefix / "versions" / "0.2.0" / "complete").exists()


def test_a_failure_of_the_first_installation_leaves_no_version_running(machine: Machine) -> None:
    machine.path.fails = PermissionError(13, "the registry refuses")

    assert machine.install("0.1.0") == 1

    assert not (machine.prefix / "current").exists()
    machine.path.fails = None
    assert machine.do("activate", "0.1.0") == 0
    assert machine.running() == "0.1.0\n"


def test_uninstall_leaves_the_tree_and_the_path_as_they_were(machine: Machine) -> None:
    before = machine.tree()
    machine.install("0.1.0")
    machine.install("0.2.0")

    assert machine.do("uninstall") == 0

    assert (machine.tree(), machine.path.value) == (before, OWN_PATH)
    assert not machine.prefix.exists()


def test_what_others_put_below_the_prefix_stays(machine: Machine) -> None:
    machine.install("0.1.0")
    state = machine.prefix / "state" / "access.log"
    state.parent.mkdir()
    state.write_text("mine")

    assert machine.do("uninstall") == 0

    assert [one for one in machine.prefix.rglob("*") if one.is_file()] == [state]


def test_a_dry_run_lists_and_changes_nothing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.install("0.1.0")
    before, path = machine.tree(), machine.path.value
    capsys.readouterr()

    assert machine.do("uninstall", "--dry-run") == 0

    told = capsys.readouterr().out.splitlines()
    assert (machine.tree(), machine.path.value) == (before, path)
    assert len(told) == 7
    assert all(one.startswith("would remove ") for one in told)


def test_a_path_entry_of_the_user_stays(machine: Machine) -> None:
    machine.path.value = f"{OWN_PATH};{machine.prefix / 'bin'}"
    before = machine.path.value
    machine.install("0.1.0")
    machine.do("uninstall")

    assert (machine.path.value, machine.path.written) == (before, 0)


def test_a_receipt_of_a_newer_installer_is_refused(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.install("0.1.0")
    (machine.prefix / "receipt.json").write_text('{"format": 2, "links": []}')
    before = machine.tree()

    assert machine.do("uninstall") == 1

    assert "use the install.ps1 beside it" in capsys.readouterr().err
    assert machine.tree() == before


class Killed(BaseException):
    """The end of the process."""


def dies(monkeypatch: pytest.MonkeyPatch, step: int, machine: Machine, *arguments: str) -> bool:
    """Run a command whose process ends before its write number `step`; return whether it came to that write."""
    count = 0

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def write(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                raise Killed
            return real(*arguments, **options)

        return write

    with monkeypatch.context() as patch:
        for name in ("replace", "rename", "unlink", "touch", "rmdir"):
            patch.setattr(Path, name, counted(getattr(Path, name)))
        patch.setattr(windows_client.shutil, "rmtree", counted(windows_client.shutil.rmtree))
        patch.setattr(TextPath, "write", counted(TextPath.write))
        try:
            machine.do(*arguments)
        except Killed:
            return True
    return False


def test_killed_at_any_step_of_an_upgrade_a_version_runs_and_uninstall_removes_all(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, step, died = machine.tree(), 0, True
    while died:
        step += 1
        for name in ("0.1.0", "0.2.0"):
            machine.install(name)
        machine.build("0.3.0")
        died = dies(monkeypatch, step, machine, "activate", "0.3.0")
        assert machine.running().strip() in machine.versions()
        if step % 2:
            assert machine.do("activate", "0.3.0") == 0
            assert (machine.running(), machine.versions() & {"0.1.0"}) == ("0.3.0\n", set())
        machine.clear_unfinished()
        assert machine.do("uninstall") == 0
        assert (machine.tree(), machine.path.value) == (before, OWN_PATH)
    assert step > 5


def test_killed_at_any_step_of_the_first_installation_uninstall_removes_all(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, step, died = machine.tree(), 0, True
    while died:
        step += 1
        machine.build("0.1.0")
        died = dies(monkeypatch, step, machine, "activate", "0.1.0")
        machine.clear_unfinished()
        if (machine.prefix / "windows_client.py").exists():
            assert machine.do("uninstall") == 0
        # The very first write may leave its half; the next installation writes over it.
        (machine.prefix / "windows_client.py.part").unlink(missing_ok=True)
        assert (machine.tree(), machine.path.value) == (before, OWN_PATH)
    assert step > 5


def test_killed_at_any_step_an_uninstall_can_be_run_again(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    before, step, died = machine.tree(), 0, True
    while died:
        step += 1
        machine.install("0.1.0")
        died = dies(monkeypatch, step, machine, "uninstall")
        # install.ps1 runs what is still there; without it nothing is left to remove.
        if (machine.prefix / "windows_client.py").exists():
            assert machine.do("uninstall") == 0
        assert (machine.tree(), machine.path.value) == (before, OWN_PATH)
    assert step > 5


def test_it_runs_as_a_script_without_any_package(machine: Machine) -> None:
    machine.install("0.1.0")
    script = machine.prefix / "windows_client.py"

    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script), "uninstall", str(machine.prefix), "--dry-run"],
        capture_output=True, text=True, check=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert f"would remove {machine.prefix / 'versions' / '0.1.0'}" in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("path", "added"),
    [
        ("", r"C:\M\bin"),
        (r"C:\A", r"C:\A;C:\M\bin"),
        (r"C:\A;", r"C:\A;C:\M\bin"),
        (r"c:\m\BIN\;C:\A", r"c:\m\BIN\;C:\A"),
        (r'"C:\M\bin"', r'"C:\M\bin"'),
        (r"C:\M\bin2", r"C:\M\bin2;C:\M\bin"),
    ],
)
def test_a_folder_is_once_in_a_path(path: str, added: str) -> None:
    assert with_folder(path, r"C:\M\bin") == added
    assert with_folder(added, r"C:\M\bin") == added


def test_a_folder_is_taken_out_and_the_rest_stays_as_it_is() -> None:
    assert without_folder(r"%X%\a;;C:\m\bin\;B", r"C:\M\bin") == r"%X%\a;;B"
    assert without_folder(r"%X%\a;;B;", r"C:\M\bin") == r"%X%\a;;B;"


@dataclass
class FakeRegistry:
    """The calls of `winreg` and of the broadcast, over one dictionary."""

    values: dict[str, tuple[str, int]]
    told: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Key:
            def __enter__(self) -> Self:
                return self

            def __exit__(self, *_: object) -> None:
                return

        def query(_key: Key, name: str) -> tuple[str, int]:
            if name not in self.values:
                raise FileNotFoundError(2, "no such value", name)
            return self.values[name]

        def store(_key: Key, name: str, _reserved: int, kind: int, value: str) -> None:
            self.values[name] = (value, kind)

        fake = SimpleNamespace(
            HKEY_CURRENT_USER=1, KEY_SET_VALUE=2, REG_EXPAND_SZ=2, OpenKey=lambda *_: Key(), QueryValueEx=query,
            SetValueEx=store,
        )  # fmt: skip
        user32 = SimpleNamespace(SendMessageTimeoutW=lambda *given: self.told.append(given))
        monkeypatch.setitem(sys.modules, "winreg", fake)
        monkeypatch.setitem(sys.modules, "ctypes", SimpleNamespace(windll=SimpleNamespace(user32=user32)))
        monkeypatch.setattr(windows_client, "sys", SimpleNamespace(platform="win32"))


@pytest.mark.parametrize("kind", [1, 2])
def test_the_registry_keeps_variables_and_the_kind_of_the_value(monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    registry = FakeRegistry({"Path": (OWN_PATH, kind)})
    registry.install(monkeypatch)

    Registry().write(with_folder(Registry().read(), r"C:\M\bin"))

    assert registry.values == {"Path": (rf"{OWN_PATH};C:\M\bin", kind)}
    ((window, message, _, about, *_),) = registry.told
    assert (window, message, about) == (0xFFFF, 0x001A, "Environment")


def test_a_user_without_a_path_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = FakeRegistry({})
    registry.install(monkeypatch)

    Registry().write(with_folder(Registry().read(), r"C:\M\bin"))

    assert registry.values == {"Path": (r"C:\M\bin", 2)}


def test_elsewhere_there_is_no_registry() -> None:
    with pytest.raises(OSError, match="only Windows"):
        Registry().read()


def test_client_names_its_folders(tmp_path: Path) -> None:
    client = Client(tmp_path, TextPath())

    assert (client.current, client.bin) == (tmp_path / "current", tmp_path / "bin")
