"""The same installer under each init and scope, and in Alpine's shell: what it writes, enables and takes away again."""

import plistlib
from pathlib import Path

import pytest

from tests.install import fetch
from tests.install.machine import Machine, populate, precious, tree

ACCOUNTS = """\
#!/bin/sh
printf '%s\\n' "${0##*/} $*" >>"$CALLS/calls"
for name in "$@"; do :; done
case ${0##*/} in
adduser) echo "$name:x:100:100::/:/sbin/nologin" >>"$INSTALL_ROOT/etc/passwd" ;;
*) sed -i "/^$name:/d" "$INSTALL_ROOT/etc/passwd" ;;
esac
"""


def openrc(machine: Machine) -> None:
    """Make it an Alpine."""
    (machine.root / "run/systemd/system").rmdir()
    (machine.root / "run/openrc").mkdir()
    (machine.root / "run/openrc/softlevel").write_text("default\n")
    (machine.root / "etc").mkdir()
    (machine.root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    for name in ("adduser", "deluser"):
        machine.program(name, ACCOUNTS)


def install_and_remove(machine: Machine, built: dict[str, Path], *arguments: str) -> tuple[list[str], set[str]]:
    """Install, upgrade and remove; return what was asked of the init at first, and the files that came."""
    homes, roots = populate(machine.home), tree(machine.root)
    kept = precious(machine.home)
    wheel = ("--from", str(built["1.0"]))
    machine.done(*arguments, *wheel, SUDO_USER="pi")
    asked = machine.asked()
    came = {path for path, kind in tree(machine.root).items() if path not in roots and not kind.startswith("folder")}
    came |= {path for path, kind in tree(machine.home).items() if path not in homes and not kind.startswith("folder")}
    machine.done(*arguments, "--from", str(built["2.0"]), SUDO_USER="pi")
    assert precious(machine.home) == kept
    machine.done("uninstall", *arguments[1:])
    assert tree(machine.home) == homes
    assert tree(machine.root) == roots
    return asked, {path for path in came if "/versions/" not in path}


def test_systemd_for_the_machine(machine: Machine, built: dict[str, Path]) -> None:
    asked, came = install_and_remove(machine, built, "all", "--system")

    services = ["membridge-nats", "membridge-coordinator", "membridge-gateway", "membridge-node@pi"]
    assert asked == [
        "systemctl daemon-reload",
        *(
            line
            for name in services
            for line in (
                f"systemctl enable --quiet {name}", f"systemctl restart {name}", f"systemctl is-active --quiet {name}",
            )
        ),
    ]  # fmt: skip
    units = ("membridge-nats", "membridge-coordinator", "membridge-gateway", "membridge-node@")
    assert came == {
        *(f"etc/systemd/system/{name}.service" for name in units), "etc/membridge/nats-server.conf",
        "opt/membridge/current", "opt/membridge/install.sh", "opt/membridge/receipt", "usr/local/bin/membridge",
    }  # fmt: skip


def test_openrc_for_the_machine(machine: Machine, built: dict[str, Path]) -> None:
    openrc(machine)

    asked, came = install_and_remove(machine, built, "all", "--system")

    services = ["membridge-nats", "membridge-coordinator", "membridge-gateway", "membridge-node"]
    assert asked == [
        "adduser -S -D -H -s /sbin/nologin membridge",
        *(
            line
            for name in services
            for line in (
                f"rc-update --quiet add {name} default", f"rc-service --quiet {name} restart",
                f"rc-service --quiet {name} status",
            )
        ),
    ]  # fmt: skip
    assert came == {
        *(f"etc/init.d/{name}" for name in services), "etc/conf.d/membridge-node", "etc/membridge/nats-server.conf",
        "opt/membridge/current", "opt/membridge/install.sh", "opt/membridge/receipt", "usr/local/bin/membridge",
    }  # fmt: skip


def test_openrc_scripts_can_be_run_and_name_the_user(machine: Machine, built: dict[str, Path]) -> None:
    openrc(machine)

    machine.done("node", "--system", "--from", str(built["1.0"]), DOAS_USER="pi")

    script = machine.root / "etc/init.d/membridge-node"
    assert script.stat().st_mode & 0o777 == 0o755
    assert f"{machine.root}/opt/membridge/current/bin" in script.read_text("utf-8")
    assert (machine.root / "etc/conf.d/membridge-node").read_text("utf-8") == 'membridge_user="pi"\n'


def test_a_node_for_the_machine_needs_its_user(machine: Machine, built: dict[str, Path]) -> None:
    said = machine.refused("node", "--system", "--from", str(built["1.0"]))

    assert said.startswith("the node needs to know whose memory it shares. Run this with sudo")


def test_launchd_for_a_user(machine: Machine, built: dict[str, Path]) -> None:
    (machine.root / "run/systemd/system").rmdir()
    machine.program("uname", "#!/bin/sh\ncase $1 in -s) echo Darwin ;; -m) echo arm64 ;; esac\n")
    machine.program("sw_vers", "#!/bin/sh\necho 14.5\n")
    user = f"gui/{machine.home.stat().st_uid}"

    asked, came = install_and_remove(machine, built, "node", "--user")

    plist = machine.home / "Library/LaunchAgents/org.membridge.node.plist"
    assert asked == [
        f"launchctl bootout {user}/org.membridge.node",
        f"launchctl bootstrap {user} {plist}",
        f"launchctl print {user}/org.membridge.node",
    ]
    assert str(plist.relative_to(machine.home)) in came
    machine.done("node", "--user", "--from", str(built["1.0"]))
    agent = plistlib.loads(plist.read_bytes())
    assert agent["Label"] == "org.membridge.node"
    assert f"{machine.prefix}/current/bin/membridge" in agent["ProgramArguments"][-1]


@pytest.mark.real
def test_alpines_shell_installs_and_removes(machine: Machine, built: dict[str, Path]) -> None:
    busybox = fetch.fetch()
    openrc(machine)
    machine.shell = (str(busybox / "sh"),)
    # No program but busybox's, and those that stand for OpenRC.
    machine.environment["PATH"] = f"{machine.programs}:{busybox}"

    asked, came = install_and_remove(machine, built, "node", "--system")

    assert "rc-update --quiet add membridge-node default" in asked
    assert "etc/init.d/membridge-node" in came


@pytest.mark.real
def test_alpines_shell_with_the_venv_module(machine: Machine, built: dict[str, Path]) -> None:
    machine.shell = (str(fetch.fetch() / "sh"),)
    machine.environment["PATH"] = f"{machine.programs}:{fetch.fetch()}"
    (machine.programs / "uv").unlink()

    install_and_remove(machine, built, "node", "--user")
