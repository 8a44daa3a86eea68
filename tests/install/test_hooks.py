"""The hooks of Claude Code: an upgrade brings them to its version, a removal takes those that came with it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.install.machine import Machine, check_removal_at_each_kill, populate, tree

Install = Callable[..., str]
#: Runs a command line of a user, whose home is in passwd, as root's `su -s SHELL USER -c LINE` does.
SU = """\
#!/bin/sh
printf 'su %s\\n' "$*" >>"$CALLS/calls"
HOME=$(sed -n "s/^$3:.*::\\(.*\\):.*/\\1/p" "$INSTALL_ROOT/etc/passwd") exec "$2" -c "$5"
"""


def hooks_of(home: Path) -> Path:
    return home / ".claude/skills/membridge"


def with_hooks(machine: Machine, install: Install) -> dict[str, str]:
    """Install the node, then the hooks; return the home as it was before."""
    before = populate(machine.home)
    install()
    ran = machine.command("install", "hooks")
    assert ran.returncode == 0, ran.stderr
    return before


def forget(receipt: Path) -> None:
    """Remove the hooks from a receipt."""
    lines = receipt.read_text().splitlines(keepends=True)
    assert any(line.startswith("hooks\t") for line in lines)
    receipt.write_text("".join(line for line in lines if not line.startswith("hooks\t")))


def test_an_upgrade_brings_them_to_its_version(machine: Machine, install: Install) -> None:
    with_hooks(machine, install)
    hooks = hooks_of(machine.home)
    before = tree(hooks)
    (hooks / "hooks/hooks.json").write_text("{}")

    install("2.0")

    assert tree(hooks) == before


def test_removal_takes_them_and_leaves_the_tree_as_it_was(machine: Machine, install: Install) -> None:
    before = with_hooks(machine, install)
    now = tree(machine.home)
    planned = machine.done("uninstall", "--user", "--dry-run")
    assert tree(machine.home) == now

    done = machine.done("uninstall", "--user", script=machine.prefix / "install.sh")

    assert tree(machine.home) == before
    assert f"\nremove the hooks of Claude Code from {machine.home}/.claude\n" in done
    assert planned.replace("would ", "").splitlines()[:-2] == done.splitlines()[:-1]
    assert "skills" not in done


def test_hooks_in_the_settings_of_an_old_claude_code_are_taken_too(machine: Machine, install: Install) -> None:
    before = populate(machine.home)
    machine.program("claude", "#!/bin/sh\necho '2.1.100 (Claude Code)'\n")
    install()
    assert machine.command("install", "hooks").returncode == 0
    settings = machine.home / ".claude/settings.json"
    assert len(json.loads(settings.read_text())["hooks"]) == 4
    # The folder alone was removed by hand.
    machine.shell_line(f"rm -r {hooks_of(machine.home)}")

    machine.done("uninstall", "--user")

    assert json.loads(settings.read_text()) == {"hooks": {}}
    assert tree(machine.home) == {**before, ".claude/settings.json": tree(machine.home)[".claude/settings.json"]}


def test_those_in_other_folders_are_found_by_the_receipt(machine: Machine, install: Install) -> None:
    moved = {"CLAUDE_CONFIG_DIR": str(machine.home / "other"), "MEMBRIDGE_STATE_DIR": str(machine.home / "state")}
    machine.environment |= moved
    before = with_hooks(machine, install)
    assert (machine.home / "other/skills/membridge").is_dir()
    for name in moved:
        del machine.environment[name]

    machine.done("uninstall", "--user")

    assert tree(machine.home) == before


def test_what_the_user_put_there_is_left_and_named(machine: Machine, install: Install) -> None:
    with_hooks(machine, install)
    notes = hooks_of(machine.home) / "notes.txt"
    notes.write_text("mine")

    said = machine.done("uninstall", "--user")

    assert [path.name for path in hooks_of(machine.home).iterdir()] == ["notes.txt"]
    assert f"because Membridge did not write it: {notes}\n" in said


def test_hooks_of_another_installation_are_left_and_named(machine: Machine, install: Install) -> None:
    with_hooks(machine, install)
    forget(machine.prefix / "receipt")
    before = tree(hooks_of(machine.home))

    said = machine.done("uninstall", "--user")

    assert tree(hooks_of(machine.home)) == before
    machine.shell_line(said.split("Remove it: ")[1])
    assert not hooks_of(machine.home).exists()


def test_an_environment_that_does_not_run_any_more_leaves_them_and_names_them(
    machine: Machine, install: Install
) -> None:
    with_hooks(machine, install)
    python = machine.prefix / "current/bin/python"
    python.unlink()
    python.symlink_to("/usr/bin/python3.0")

    ran = machine.run("uninstall", "--user")

    assert (ran.returncode, machine.prefix.exists()) == (0, False)
    [line] = [line for line in ran.stderr.splitlines() if line.startswith("warning: the hooks")]
    machine.shell_line(line.split("Remove them: ")[1])
    assert not hooks_of(machine.home).exists()


def test_the_user_of_a_machine_s_node_removes_them(machine: Machine, built: dict[str, Path]) -> None:
    before = populate(machine.home)
    machine.program("su", SU)
    (machine.root / "etc").mkdir()
    (machine.root / "etc/passwd").write_text(f"root:x:0:0::/root:/bin/sh\npi:x:7:7::{machine.home}:/bin/sh\n")
    machine.done("node", "--system", "--from", str(built["1.0"]), SUDO_USER="pi")
    machine.shell_line(f"{machine.root}/opt/membridge/current/bin/membridge install hooks")
    assert hooks_of(machine.home).is_dir()
    # Where it is not root who installs them, the receipt cannot be written.
    forget(machine.root / "opt/membridge/receipt")
    planned = machine.done("uninstall", "--system", "--dry-run")
    machine.asked()

    # Root's home is another one.
    done = machine.done("uninstall", "--system", HOME=str(machine.folder / "root home"))

    assert tree(machine.home) == before
    line = f"remove the hooks of Claude Code from {machine.home}/.claude, as pi"
    assert f"would {line}\n" in planned
    assert f"\n{line}\n" in done
    assert next(call for call in machine.asked() if call.startswith("su ")).startswith("su -s /bin/sh pi -c ")


@pytest.mark.slow
def test_a_removal_that_is_killed_is_finished_by_the_next(machine: Machine, install: Install) -> None:
    before = with_hooks(machine, install)
    check_removal_at_each_kill(machine, before)
