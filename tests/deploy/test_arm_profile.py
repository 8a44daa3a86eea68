"""The ARM profile in a tree of its own, with stand-ins of the programs that would change the machine."""

import hashlib
import os
import re
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "arm" / "membridge-arm-profile"
PATIENCE = 60.0
#: What the kernel of a board has before.
KERNEL = {
    "vm.swappiness": "60",
    "vm.page-cluster": "3",
    "vm.vfs_cache_pressure": "100",
    "vm.dirty_background_bytes": "0",
    "vm.dirty_background_ratio": "10",
    "vm.dirty_bytes": "0",
    "vm.dirty_ratio": "20",
}
FSTAB = "PARTUUID=1-02 / ext4 defaults,noatime 0 1"
#: Keeps kernel settings in files, with bytes and ratio of written data excluding each other as in the kernel.
SYSCTL = """\
#!/bin/sh
put() {
    mkdir -p "$KERNEL"; echo "$2" >"$KERNEL/$1"
    case $1 in
    *_bytes) echo 0 >"$KERNEL/${1%_bytes}_ratio" ;;
    *_ratio) echo 0 >"$KERNEL/${1%_ratio}_bytes" ;;
    esac
}
case "$1 $2" in
"-n "*) cat "$KERNEL/$2" ;;
"-q -w") put "${3%%=*}" "${3#*=}" ;;
"-q -p") while IFS='=' read -r key value; do put "$key" "$value"; done <"$3" ;;
esac
"""


@dataclass(slots=True)
class Board:
    """A tree of files, its kernel settings, and the calls of programs."""

    base: Path
    root: Path = field(init=False)

    def __post_init__(self) -> None:
        self.root = self.base / "root"
        for folder in ("etc", "var/lib", "proc", "run/systemd/system", "usr/local"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "etc" / "fstab").write_text(FSTAB)
        (self.root / "etc" / "fstab").chmod(0o640)
        (self.root / "proc" / "meminfo").write_text("MemTotal:         437000 kB\nMemFree: 1 kB\n")
        (self.base / "kernel").mkdir()
        for key, value in KERNEL.items():
            (self.base / "kernel" / key).write_text(f"{value}\n")
        (self.base / "bin").mkdir()
        for program in ("mkswap", "swapon", "swapoff", "systemctl"):
            self.program(program, f'#!/bin/sh\necho "{program} $*" >>"$CALLS"\n')
        self.program("sysctl", SYSCTL)
        self.program("df", "#!/bin/sh\necho header; echo /dev/root 1 1 4000000 1% /\n")
        self.program("id", "#!/bin/sh\necho 0\n")

    def program(self, name: str, text: str) -> None:
        (self.base / "bin" / name).write_text(text)
        (self.base / "bin" / name).chmod(0o700)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {
            "PATH": f"{self.base / 'bin'}:/usr/bin:/bin:/usr/sbin:/sbin",
            "KERNEL": str(self.base / "kernel"),
            "CALLS": str(self.base / "calls"),
            "MEMBRIDGE_ARM_SWAP_MIB": "1",
        }
        command = ["sh", str(SCRIPT), *arguments, "--root", str(self.root)]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE)

    def done(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
        return result.stdout

    def kernel(self) -> dict[str, str]:
        return {key: (self.base / "kernel" / key).read_text().strip() for key in KERNEL}

    def calls(self) -> list[str]:
        calls = self.base / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    def tree(self) -> dict[str, tuple[int, str]]:
        """Return mode and content of everything in the tree."""
        found: dict[str, tuple[int, str]] = {}
        for path in self.root.rglob("*"):
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path.relative_to(self.root))] = (path.stat().st_mode, content)
        return found


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_what_was_applied_is_there_and_reverting_leaves_nothing(board: Board) -> None:
    before = board.tree()

    board.done("apply")

    assert board.kernel() == {
        **KERNEL, "vm.swappiness": "100", "vm.page-cluster": "0", "vm.vfs_cache_pressure": "50",
        "vm.dirty_background_bytes": "8388608", "vm.dirty_background_ratio": "0",
        "vm.dirty_bytes": "33554432", "vm.dirty_ratio": "0",
    }  # fmt: skip
    fstab = board.root / "etc" / "fstab"
    assert fstab.read_text() == f"{FSTAB}\n/var/lib/membridge-arm/swap none swap sw,pri=10 0 0\n"
    assert fstab.stat().st_mode & 0o777 == 0o640
    assert (board.root / "var/lib/membridge-arm/swap").stat().st_mode & 0o777 == 0o600
    zram = (board.root / "usr/local/lib/membridge/zram-swap").read_text()
    # Three quarters of this board's memory.
    assert 'echo "327750K"' in zram
    assert subprocess.run(["sh", "-n"], input=zram, text=True, check=False).returncode == 0
    assert "systemctl enable --now membridge-zram.service" in board.calls()

    board.done("revert")

    assert board.tree() == before
    assert board.kernel() == KERNEL
    assert "systemctl disable --now membridge-zram.service" in board.calls()


def test_a_dry_run_says_what_it_would_do_and_does_nothing(board: Board) -> None:
    before = board.tree()
    planned = board.done("apply", "--dry-run")
    assert (board.tree(), board.calls(), board.kernel()) == (before, [], KERNEL)

    board.done("apply")
    applied, calls, kernel = board.tree(), board.calls(), board.kernel()
    back = board.done("revert", "--dry-run")
    assert (board.tree(), board.calls(), board.kernel()) == (applied, calls, kernel)

    made = {f"/{name}" for name in applied if (board.root / name).is_file() and name not in before}
    for file in made - {f"/var/lib/membridge-arm/{name}" for name in ("notes", "fstab", "fstab.ours")}:
        assert file in planned
        assert f"remove {file}" in back
    assert "would: set vm.swappiness=60" in back


def test_applying_twice_changes_nothing_more(board: Board) -> None:
    board.done("apply")
    once = board.tree()
    board.done("apply")
    again = board.tree()

    assert again == once
    board.done("revert")
    assert board.kernel() == KERNEL
    assert "nothing to revert" in board.done("revert")


@pytest.mark.parametrize("step", range(1, 40, 3))
def test_killed_at_any_step_it_is_reverted_or_applied_again(tmp_path: Path, step: int) -> None:
    """Each program that the script runs may be its last: a stand-in of `sync`, which notes every step, ends it."""
    for ending in ("revert", "apply"):
        board = Board(tmp_path / ending)
        before = board.tree()
        counter = board.base / "steps"
        ended = f'#!/bin/sh\necho >>"{counter}"\n[ "$(wc -l <"{counter}")" -ne {step} ] || kill -KILL $PPID\n'
        for program in ("sync", "mv", "chmod", "dd"):
            board.program(program, f'{ended}exec /bin/{program} "$@"\n')
        killed = board.run("apply")
        assert killed.returncode in {0, -signal.SIGKILL, 128 + signal.SIGKILL}
        for program in ("sync", "mv", "chmod", "dd"):
            (board.base / "bin" / program).unlink()

        board.done(ending)
        if ending == "apply":
            board.done("revert")

        assert board.tree() == before
        assert board.kernel() == KERNEL


def test_what_others_manage_is_left_to_them(board: Board) -> None:
    (board.root / "etc" / "rpi").mkdir()
    (board.root / "etc" / "rpi" / "swap.conf").write_text("[Main]\n")

    said = board.done("apply")

    assert "leave compressed swap to rpi-swap" in said
    assert "leave swap on the disk as it is" in said
    assert not (board.root / "usr/local/lib").exists()
    assert (board.root / "etc" / "fstab").read_text() == FSTAB


def test_a_line_that_somebody_added_to_fstab_since_stays(board: Board) -> None:
    board.done("apply")
    fstab = board.root / "etc" / "fstab"
    fstab.write_text(fstab.read_text() + "tmpfs /tmp tmpfs defaults 0 0\n")

    board.done("revert")

    assert fstab.read_text() == f"{FSTAB}\ntmpfs /tmp tmpfs defaults 0 0\n"


def test_a_file_that_was_there_is_neither_written_nor_removed(board: Board) -> None:
    mine = board.root / "etc" / "sysctl.d" / "90-membridge-arm.conf"
    mine.parent.mkdir()
    mine.write_text("vm.swappiness=1\n")

    board.done("apply")
    board.done("revert")

    assert mine.read_text() == "vm.swappiness=1\n"


def test_status_tells_the_profile_from_what_is(board: Board) -> None:
    (board.root / "proc" / "sys" / "vm").mkdir(parents=True)
    (board.root / "proc" / "sys" / "vm" / "swappiness").write_text("60\n")
    (board.root / "proc" / "cgroups").write_text("#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t0\n")

    said = board.done("status")

    assert "profile: not applied" in said
    assert "vm.swappiness: 60, the profile has 100" in said
    assert "cgroup_enable=memory" in said
    board.done("apply", "--no-run")
    assert "profile: applied" in board.done("status")
    assert board.calls() == []


@pytest.mark.parametrize(("arguments", "says"), [(["aply"], "no argument aply"), ([], "apply [--dry-run]")])
def test_a_wrong_call_changes_nothing(arguments: list[str], says: str, tmp_path: Path) -> None:
    result = subprocess.run(
        ["sh", str(SCRIPT), *arguments], env={"PATH": os.defpath}, cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=PATIENCE,
    )  # fmt: skip

    assert result.returncode == 64
    assert says in result.stdout + result.stderr
    assert re.match(r"#!/bin/sh\n", SCRIPT.read_text())
