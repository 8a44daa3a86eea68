"""The client that `deploy/install.ps1` installs on Windows: which version runs, the command, PATH, and the receipt.

`python -I windows_client.py activate PREFIX NAME` makes the environment PREFIX/versions/NAME the one that runs;
`uninstall PREFIX [--dry-run]` removes what the receipt lists. It uses the standard library alone and imports nothing of
ours: the Python that runs it is the one that made the environment, which `uninstall` deletes.

Which version runs is a line in the file PREFIX/current, and the command bin/membridge.cmd reads it. A rename over a
file is one step on Windows; a junction would have to go before the new one can have its name, and a command between
the two would find neither.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

FORMAT = 1
#: The command, the installer and this module, below the prefix.
COMMAND, INSTALLER, OWN = "bin/membridge.cmd", "install.ps1", "windows_client.py"
#: The end of the name of an environment that is being removed.
GONE = ".gone"
#: ASCII, for cmd.exe reads it in the code page of the console; the name of the version does not leave it.
SHIM = """\
@echo off
rem Written by Membridge's installer; install.ps1 -Uninstall removes it.
setlocal
set "_membridge="
if exist "%~dp0..\\current" set /p _membridge=<"%~dp0..\\current"
if not exist "%~dp0..\\versions\\%_membridge%\\Scripts\\membridge.exe" (
    echo error: the environment of Membridge is gone. Run install.ps1 again. 1>&2
    exit /b 1
)
"%~dp0..\\versions\\%_membridge%\\Scripts\\membridge.exe" %*
exit /b %errorlevel%
"""


@dataclass(slots=True)
class Receipt:
    """What the installer put here: environments by name, files below the prefix, the folder in the user's PATH."""

    versions: list[str] = field(default_factory=list[str])
    files: list[str] = field(default_factory=list[str])
    path_entry: str = ""
    format: int = FORMAT


class UserPath(Protocol):
    """The user's own PATH, without that of the machine."""

    def read(self) -> str:
        """Return it as it is stored, with the names of variables in it."""
        ...

    def write(self, value: str) -> None:
        """Store it, and let programs that start from now on see it."""
        ...


class Registry:
    """The PATH of this user in the registry, where variables in it stay what they are."""

    _KEY, _NAME = "Environment", "Path"

    def read(self) -> str:
        """Return the value, empty where there is none."""
        return self._stored()[0]

    def write(self, value: str) -> None:
        """Store the value with the kind that it has, and tell the programs that run: they start others with it."""
        if sys.platform == "win32":
            import ctypes  # noqa: PLC0415 - Windows alone
            import winreg  # noqa: PLC0415 - as above

            with winreg.OpenKey(winreg.HKEY_CURRENT_USER, self._KEY, 0, winreg.KEY_SET_VALUE) as key:
                winreg.SetValueEx(key, self._NAME, 0, self._stored()[1], value)
            everybody, setting_changed, abort_if_hung, milliseconds = 0xFFFF, 0x001A, 0x0002, 1000
            ctypes.windll.user32.SendMessageTimeoutW(
                everybody, setting_changed, 0, self._KEY, abort_if_hung, milliseconds, None
            )

    def _stored(self) -> tuple[str, int]:
        if sys.platform == "win32":
            import winreg  # noqa: PLC0415 - Windows alone

            with winreg.OpenKey(winreg.HKEY_CURRENT_USER, self._KEY) as key:
                with suppress(FileNotFoundError):
                    return winreg.QueryValueEx(key, self._NAME)
                return "", winreg.REG_EXPAND_SZ
        raise OSError("only Windows keeps PATH in a registry")


def with_folder(path: str, folder: str) -> str:
    """Return a PATH with `folder` in it, at its end if it was not there."""
    return path if _has(path, folder) else ";".join([*filter(None, path.split(";")), folder])


def without_folder(path: str, folder: str) -> str:
    """Return a PATH without `folder`; all else stays as it is."""
    return ";".join(one for one in path.split(";") if not _same(one, folder)) if _has(path, folder) else path


def _has(path: str, folder: str) -> bool:
    return any(_same(one, folder) for one in path.split(";"))


def _same(one: str, other: str) -> bool:
    """Whether two folders of a PATH are one: case, quotes and a backslash at the end mean nothing there."""
    return one.strip(' "').rstrip("\\").casefold() == other.rstrip("\\").casefold()


class Client:
    """The installed client below `prefix`."""

    def __init__(self, prefix: Path, path: UserPath) -> None:
        self.prefix, self._path = prefix, path
        self.current, self.bin = prefix / "current", prefix / "bin"
        self._versions, self._receipt = prefix / "versions", prefix / "receipt.json"

    def activate(self, name: str) -> None:
        """Make the environment `name` the one that runs. If that fails, the one before it runs on. Raises OSError.

        Whatever is written is noted first. The switch is the last step but PATH, which only finds the command.
        """
        receipt, before = self.receipt(), self._running()
        if name not in receipt.versions:
            receipt.versions.append(name)
        folder = str(self.bin)
        if not receipt.path_entry and not _has(self._path.read(), folder):
            receipt.path_entry = folder
        written = self._written()
        receipt.files = sorted({*receipt.files, *written})
        # First what can remove all the rest.
        replace(self.prefix / OWN, written[OWN])
        self._note(receipt)
        complete = self._versions / name / "complete"
        try:
            complete.touch()
            for file, content in written.items():
                replace(self.prefix / file, content)
            self._switch(name)
            if receipt.path_entry:
                self._path.write(with_folder(self._path.read(), folder))
        except OSError:
            if before is None:
                self.current.unlink(missing_ok=True)
            else:
                self._switch(before)
            complete.unlink(missing_ok=True)
            raise
        self._prune(receipt, {name, before})

    def uninstall(self, *, say: Callable[[str], None], dry: bool) -> None:
        """Remove what the receipt lists, then the receipt and this module, so that it can be called again.

        Raises OSError.
        """
        receipt = self.receipt()
        if receipt.path_entry:
            say(f"remove {receipt.path_entry} from PATH")
            if not dry:
                self._path.write(without_folder(self._path.read(), receipt.path_entry))
        trees = [self._versions / one for one in receipt.versions]
        files = [self.prefix / one for one in receipt.files if one != OWN]
        files = [self.current, *files, self._receipt, self.prefix / OWN]
        files = [half for one in files for half in (_part(one), one)]
        for one in [*trees, *files]:
            if one.exists():
                say(f"remove {one}")
                if not dry:
                    shutil.rmtree(one) if one in trees else one.unlink()
        if not dry:
            for folder in (self._versions, self.bin, self.prefix):
                with suppress(OSError):
                    folder.rmdir()

    def receipt(self) -> Receipt:
        """Return what was noted, an empty receipt where nothing was. Raises ValueError for one of a newer installer."""
        if not self._receipt.exists():
            return Receipt()
        found = json.loads(self._receipt.read_text("utf-8"))
        if found.get("format") != FORMAT:
            raise ValueError(f"{self._receipt} is of another version of the installer: use the install.ps1 beside it")
        return Receipt(**found)

    def _running(self) -> str | None:
        return self.current.read_text("ascii").strip() if self.current.exists() else None

    def _switch(self, name: str) -> None:
        # cmd.exe reads lines that end as those of Windows do.
        replace(self.current, f"{name}\r\n".encode("ascii"))

    def _written(self) -> dict[str, bytes]:
        """Return the files of the client: the command, and what uninstalls it."""
        installer = Path(__file__).parents[1] / "embedded" / INSTALLER
        return {
            COMMAND: SHIM.replace("\n", "\r\n").encode("ascii"),
            OWN: Path(__file__).read_bytes(),
            INSTALLER: installer.read_bytes(),
        }

    def _note(self, receipt: Receipt) -> None:
        replace(self._receipt, json.dumps(asdict(receipt), indent=2).encode())

    def _prune(self, receipt: Receipt, needed: set[str | None]) -> None:
        """Remove environments that neither run nor ran before; one whose files are in use stays for the next time."""
        for name in [one for one in receipt.versions if one not in needed]:
            gone = name.removesuffix(GONE) + GONE
            if gone not in receipt.versions:
                receipt.versions.append(gone)
                self._note(receipt)
            with suppress(OSError):
                # Windows renames no folder of which a file is open, so nothing is half deleted.
                if name != gone and (self._versions / name).exists():
                    (self._versions / name).rename(self._versions / gone)
                if (self._versions / gone).exists():
                    shutil.rmtree(self._versions / gone)
                receipt.versions = [one for one in receipt.versions if one not in {name, gone}]
        self._note(receipt)


def replace(path: Path, content: bytes) -> None:
    """Write a file that has its name at once and whole; one that has the content already is not touched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_bytes() == content:
        return
    part = _part(path)
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def main(arguments: list[str] | None = None, path: UserPath | None = None) -> int:
    """Do what install.ps1 asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="windows_client.py", description=__doc__)
    parser.add_argument("action", choices=["activate", "uninstall"])
    parser.add_argument("prefix", type=Path)
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args(arguments)
    client = Client(given.prefix.absolute(), path or Registry())
    try:
        if given.action == "activate":
            client.activate(given.name)
            _say(f"Membridge {given.name} runs as {client.bin / 'membridge.cmd'}. A new console finds it in PATH.")
        else:
            would = "would " if given.dry_run else ""
            client.uninstall(say=lambda text: _say(would + text), dry=given.dry_run)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
