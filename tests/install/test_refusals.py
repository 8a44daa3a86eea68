"""What the installer refuses, each in one sentence that says what to do, before it writes anything."""

from pathlib import Path

import pytest

from tests.install.machine import PYTHON, SCRIPT, Machine, tree

#: A program that answers one question otherwise than this machine does, and the sentence that this leads to.
SYSTEMS = {
    "32-bit userland": ("getconf", 'case $1 in LONG_BIT) echo 32 ;; *) exec /usr/bin/getconf "$@" ;; esac', "32-bit"),
    "old glibc": (
        "getconf",
        'case $1 in GNU_LIBC_VERSION) echo glibc 2.27 ;; *) exec /usr/bin/getconf "$@" ;; esac',
        "glibc 2.27 is too old: Membridge needs 2.28",
    ),
    "32-bit processor": ("uname", 'case $1 in -m) echo armv7l ;; *) exec /usr/bin/uname "$@" ;; esac', "armv7l"),
    "other system": ("uname", 'case $1 in -s) echo FreeBSD ;; *) exec /usr/bin/uname "$@" ;; esac', "not on FreeBSD"),
}


@pytest.mark.parametrize("case", SYSTEMS)
def test_a_system_without_packages_is_refused(machine: Machine, built: dict[str, Path], case: str) -> None:
    name, script, said = SYSTEMS[case]
    machine.program(name, f"#!/bin/sh\n{script}\n")

    assert said in machine.refused("node", "--user", "--from", str(built["1.0"]))
    assert tree(machine.home) == {}


@pytest.mark.parametrize(("version", "accepted"), [("12.7.6", False), ("13.0", True), ("26.1", True)])
def test_macos_before_13_is_refused(machine: Machine, built: dict[str, Path], version: str, accepted: bool) -> None:
    machine.program("uname", "#!/bin/sh\ncase $1 in -s) echo Darwin ;; -m) echo arm64 ;; esac\n")
    machine.program("sw_vers", f"#!/bin/sh\necho {version}\n")

    ran = machine.run("node", "--user", "--dry-run", "--from", str(built["1.0"]))

    assert (ran.returncode == 0) == accepted
    if accepted:
        assert "under launchd" in ran.stdout
        assert "Library/LaunchAgents/org.membridge.node.plist" in ran.stdout
    else:
        assert "macOS 12.7.6 is too old: Membridge needs macOS 13 or newer" in ran.stderr


def test_a_python_without_venv_is_refused_with_the_line_of_apt(machine: Machine, built: dict[str, Path]) -> None:
    (machine.programs / "uv").unlink()
    machine.program("apt-get", "#!/bin/sh\n")
    # The script goes on with the interpreter that a program names as the one behind it.
    fake = machine.folder / "python"
    cases = '*ensurepip*) exit 1 ;; *_base_executable*) echo "$0"; exit ;;'
    fake.write_text(f'#!/bin/sh\ncase $2 in {cases} esac\nexec {PYTHON} "$@"\n')
    fake.chmod(0o755)

    line = machine.refused("node", "--user", "--from", str(built["1.0"]), PYTHON=str(fake))

    assert line.endswith("has no venv module. Install it: sudo apt-get install python3-venv")


def test_without_a_new_python_it_says_how_to_get_one(machine: Machine, built: dict[str, Path]) -> None:
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        machine.program(name, "#!/bin/sh\nexit 1\n")

    assert "no Python 3.11 or newer" in machine.refused("node", "--user", "--from", str(built["1.0"]), PYTHON="python3")


def test_what_another_tool_installed_is_not_overwritten(machine: Machine, built: dict[str, Path]) -> None:
    other = machine.home / ".local/bin/membridge"
    other.parent.mkdir(parents=True)
    other.write_text("pipx\n")

    assert "pipx uninstall membridge" in machine.refused("node", "--user", "--from", str(built["1.0"]))
    assert other.read_text() == "pipx\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["node", "server"], "two modes"),
        (["node", "--user", "--system"], "exclude each other"),
        (["node", "--prefix"], "--prefix needs a value"),
        (["node", "--user", "--prefix", "/a b"], "has a space or a special character"),
        (["node", "--user", "--prefix", "/a/../b"], "is not a plain path"),
        (["node", "--user", "--from", "/no/such.whl"], "/no/such.whl does not exist"),
        (["uninstall", "--user"], "nothing of this installer is in"),
        (["cleanup", "--user"], "nothing of this installer is in"),
    ],
)
def test_wrong_arguments_are_refused(machine: Machine, arguments: list[str], said: str) -> None:
    assert said in machine.refused(*arguments)
    assert tree(machine.home) == {}


def test_a_wheel_of_another_version_is_refused(machine: Machine, built: dict[str, Path]) -> None:
    said = machine.refused("node", "--user", "--from", str(built["1.0"]), "--version", "2.0")

    assert said == f"{built['1.0']} is version 1.0, not 2.0. Leave out --version."


def test_a_download_that_was_cut_off_does_nothing(machine: Machine) -> None:
    body = SCRIPT.read_bytes()
    cut = machine.folder / "cut.sh"
    for end in range(0, len(body) - len(b'main "$@"; exit\n') + 1, 997):
        cut.write_bytes(body[:end])
        ran = machine.run("node", "--user", script=cut)
        assert (ran.stdout, tree(machine.home), machine.asked()) == ("", {}, []), end
