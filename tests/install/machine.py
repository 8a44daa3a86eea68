"""A machine to install on: a home, a root, and programs that record what they are asked, since no init runs here."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "install.sh"
#: Seconds that a run may take on a busy machine: it builds an environment.
RUN = 110
#: The program behind the interpreter of the tests.
PYTHON = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]

#: What a service manager's program does: record, and fail for what `bad` names.
PROGRAM = """\
#!/bin/sh
printf '%s\\n' "${0##*/} $*" >>"$CALLS/calls"
case $* in
*Linger*) [ ! -e "$CALLS/lingers" ] || echo yes ;;
enable-linger*) : >"$CALLS/lingers" ;;
disable-linger*) rm -f "$CALLS/lingers" ;;
esac
# The services of this version do not start.
case " $* " in *" restart "* | *" is-active "*)
    if [ -e "$CALLS/bad" ]; then
        read -r bad <"$CALLS/bad"
        [ "$(readlink "$CALLS/prefix/current")" != "versions/$bad" ] || exit 1
    fi ;;
esac
exit 0
"""
#: Ends the installer before its step number `at`, as a power cut does.
STEP = """\
#!/bin/sh
printf '%s\\n' "${0##*/} $*" >>"$CALLS/steps"
if [ "$(wc -l <"$CALLS/steps")" -eq "$(cat "$CALLS/at")" ]; then
    kill -9 "$(cat "$CALLS/pid")"
    exit 137
fi
"""
#: The programs by which the script changes something.
STEPS = ("mkdir", "mv", "cp", "rm", "rmdir", "chmod", "uv", "systemctl", "loginctl")
MANAGERS = ("systemctl", "loginctl", "rc-service", "rc-update", "launchctl")


@dataclass
class Machine:
    """A machine; `environment` is what a shell of its user has."""

    folder: Path
    packages: Path
    environment: dict[str, str] = field(default_factory=dict[str, str])
    shell: tuple[str, ...] = ("/bin/sh",)

    def __post_init__(self) -> None:
        self.home, self.root, self.calls = (self.folder / name for name in ("home", "root", "calls"))
        self.programs = self.folder / "programs"
        for made in (self.home, self.root / "run" / "systemd" / "system", self.calls, self.programs):
            made.mkdir(parents=True)
        self.prefix = self.home / ".local" / "share" / "membridge"
        for name in MANAGERS:
            self.program(name, PROGRAM)
        (self.programs / "uv").symlink_to(Path(sys.executable).with_name("uv"))
        self.environment = {
            "HOME": str(self.home), "PATH": f"{self.programs}:/usr/bin:/bin", "PYTHON": str(PYTHON), "LANG": "C.UTF-8",
            "PYTHONPATH": str(self.packages), "UV_COMPILE_BYTECODE": "0",
            "INSTALL_ROOT": str(self.root), "CALLS": str(self.calls),
        }  # fmt: skip
        (self.calls / "prefix").symlink_to(self.prefix)

    def program(self, name: str, text: str) -> None:
        """Put a program first on the PATH."""
        (self.programs / name).unlink(missing_ok=True)
        (self.programs / name).write_text(text, encoding="utf-8")
        (self.programs / name).chmod(0o755)

    def ready(self, environment: Path) -> None:
        """Let `uv` copy an environment that exists, for tests that need many of them."""
        copy = f'[ "$1" != venv ] || {{ for target in "$@"; do :; done; cp -al "{environment}" "$target"; }}'
        self.program("uv", f'#!/bin/sh\n{copy}\nrm -f "$target/complete"\n')

    def run(
        self, *arguments: str, script: Path = SCRIPT, seconds: float = RUN, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the installer."""
        command = [*self.shell, str(script), *arguments]
        return subprocess.run(
            command, env={**self.environment, **variables}, cwd=self.folder, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip

    def done(self, *arguments: str, script: Path = SCRIPT, seconds: float = RUN, **variables: str) -> str:
        """Run the installer, which succeeds; return what it printed."""
        ran = self.run(*arguments, script=script, seconds=seconds, **variables)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def refused(self, *arguments: str, **variables: str) -> str:
        """Run the installer, which refuses in one line; return that line."""
        ran = self.run(*arguments, **variables)
        assert ran.returncode == 1, ran.stdout + ran.stderr
        assert ran.stdout == ""
        (line,) = ran.stderr.splitlines()
        return line.removeprefix("error: ")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command that was installed."""
        return subprocess.run(
            [self.home / ".local/bin/membridge", *arguments], env=self.environment, cwd=self.folder,
            capture_output=True, text=True, timeout=RUN, check=False,
        )  # fmt: skip

    def shell_line(self, line: str) -> str:
        """Run a line of a remedy, which succeeds."""
        ran = subprocess.run(
            ["/bin/sh", "-c", line], env=self.environment, cwd=self.folder, capture_output=True, text=True,
            timeout=RUN, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def current(self) -> str:
        """Return the name of the environment that runs."""
        return (self.prefix / "current").readlink().name

    def killed(self, step: int, *arguments: str) -> bool:
        """Run the installer and end it before a step; return whether it had so many steps."""
        behind = self.folder / "behind"
        if not behind.exists():
            behind.mkdir()
            for name in STEPS:
                found = next(
                    Path(place, name) for place in self.environment["PATH"].split(":") if Path(place, name).exists()
                )
                (behind / name).symlink_to(found.resolve() if found.is_symlink() else found)
                step_program = self.folder / "steps"
                step_program.mkdir(exist_ok=True)
                (step_program / name).write_text(f'{STEP}exec "{behind / name}" "$@"\n', encoding="utf-8")
                (step_program / name).chmod(0o755)
        (self.calls / "steps").write_text("")
        (self.calls / "at").write_text(str(step))
        shell = 'echo $$ >"$CALLS/pid"; exec "$@"'
        command = ["/bin/sh", "-c", shell, "sh", *self.shell, str(SCRIPT), *arguments]
        environment = {**self.environment, "PATH": f"{self.folder / 'steps'}:{self.environment['PATH']}"}
        ran = subprocess.run(
            command, env=environment, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN,
            check=False,
        )  # fmt: skip
        assert ran.returncode in {0, -9}, ran.stderr
        return ran.returncode == -9

    def asked(self) -> list[str]:
        """Return what the service managers were asked, and forget it."""
        file = self.calls / "calls"
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [line for line in lines if "show-user" not in line]


def tree(folder: Path) -> dict[str, str]:
    """Return every path below a folder: its kind, mode and content."""
    found: dict[str, str] = {}
    for place, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(place, name)
            key = str(path.relative_to(folder))
            if path.is_symlink():
                found[key] = f"-> {path.readlink()}"
            elif path.is_dir():
                found[key] = f"folder {path.stat().st_mode:o}"
            else:
                found[key] = f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return found


#: What the installer never touches, as users have it.
PRECIOUS = {
    ".claude-mem/claude-mem.db": "the memory",
    ".claude-mem/claude-mem.db-wal": "its log",
    ".claude-mem/settings.json": "{}",
    ".claude/.credentials.json": '{"token": "secret"}',
    ".claude/auth.json": '{"key": "secret"}',
    ".claude/settings.json": '{"hooks": {}}',
    ".claude/settings.local.json": '{"permissions": {}}',
    ".claude-mem-minio/config.env": "CLAUDE_PROJECT_ID=garden\nMINIO_BUCKET=old\n",
    ".claude-mem-minio/bin/claude-mem-push": "#!/bin/sh\n",
    ".claude-mem-minio/bin/claude-mem-hook-pull": "#!/bin/sh\n",
}
#: What others put where the installer writes.
NEIGHBOURS = {
    ".config/systemd/user/other.service": "[Service]\nExecStart=/bin/true\n",
    ".local/bin/other": "#!/bin/sh\n",
    ".local/share/other/file": "other",
    ".config/membridge/config.toml": '[node]\nid = "board"\n',
    ".local/state/membridge/projects/journal": "state",
}


def populate(home: Path) -> dict[str, str]:
    """Fill a home with what must stay as it is; return it as `tree` does."""
    for name, body in {**PRECIOUS, **NEIGHBOURS}.items():
        file = home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body, encoding="utf-8")
        file.chmod(0o600 if "bin/" not in name else 0o755)
    return tree(home)


def precious(home: Path) -> dict[str, str]:
    """Return what must never change, as `tree` does."""
    folders = {name.split("/")[0] for name in PRECIOUS}
    return {path: body for path, body in tree(home).items() if path.split("/")[0] in folders}


def restore(saved: Path, home: Path) -> None:
    """Make a home what it was; only the receipt is a file that is ever changed and not replaced."""

    def copy(source: str, target: str) -> None:
        (shutil.copy2 if Path(source).name == "receipt" else os.link)(source, target)

    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(saved, home, symlinks=True, copy_function=copy)


def check_removal_at_each_kill(machine: Machine, before: dict[str, str]) -> None:
    """Kill a removal at each of its steps; the next one leaves the home as it was `before`."""
    saved = machine.folder / "saved"
    machine.home.rename(saved)
    step = 1
    while True:
        restore(saved, machine.home)
        if not machine.killed(step, "uninstall", "--user"):
            break
        ran = machine.run("uninstall", "--user")
        assert ran.returncode == 0 or "there is no receipt" in ran.stderr
        assert tree(machine.home) == before, step
        step += 1
    assert step > 8
