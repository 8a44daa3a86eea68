"""What starts Membridge: the same promises for systemd, OpenRC and launchd, and one text for every service."""

import json
import os
import plistlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from membridge.cli import main as cli
from membridge.embedded.unit_files import Kind
from membridge.settings import all_groups
from membridge.settings.table import table_of
from membridge.wiring.process import REVOKED

DEPLOY = Path(__file__).parents[2] / "deploy"
SYSTEMD = sorted((DEPLOY / "systemd").glob("*/*.service"))
OPENRC = sorted(file for file in (DEPLOY / "openrc").iterdir() if file.is_file())
LAUNCHD = sorted((DEPLOY / "launchd").iterdir())
FOLDERS = {
    Kind.USER: DEPLOY / "systemd" / "user",
    Kind.SYSTEM: DEPLOY / "systemd" / "system",
    Kind.OPENRC: DEPLOY / "openrc",
    Kind.LAUNCHD: DEPLOY / "launchd",
}
PATIENCE = 60.0


def name_of(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"


def options(file: Path) -> dict[str, list[str]]:
    """Return each option of a unit with its values."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", file.read_text("utf-8"), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("kind", Kind)
def test_the_command_writes_the_files_of_the_repository(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.main(["units", "--json", "--for", kind.value]) == 0

    told = {unit["name"]: unit["text"] for unit in json.loads(capsys.readouterr().out)["units"]}

    assert told == {file.name: file.read_text("utf-8") for file in FOLDERS[kind].iterdir() if file.is_file()}


@pytest.mark.parametrize("file", SYSTEMD, ids=name_of)
def test_a_unit_is_watched_restarted_and_limited(file: Path) -> None:
    unit = options(file)
    nats, node = "nats" in file.name, "node" in file.name

    assert unit["Type"] == ["exec" if nats else "notify"]
    assert nats or unit["WatchdogSec"] == ["60s"]
    assert unit["Restart"] == ["always" if nats else "on-failure"]
    assert (unit["StartLimitIntervalSec"], unit["StartLimitBurst"], unit["RestartSec"]) == (["20min"], ["60"], ["10s"])
    assert unit.get("RestartPreventExitStatus") == ([str(REVOKED)] if node else None)
    assert {"MemoryHigh", "MemoryMax", "TasksMax"} <= unit.keys()
    assert ("MemoryDenyWriteExecute" in unit) is not node
    assert ("network-online.target" in file.read_text("utf-8")) is (file.parent.name == "system")


@pytest.mark.parametrize("flavour", ["user", "system"])
def test_all_units_together_leave_a_small_board_its_memory(flavour: str) -> None:
    shares = [int(options(file)["MemoryHigh"][0].removesuffix("%")) for file in SYSTEMD if file.parent.name == flavour]

    assert len(shares) == 4
    assert sum(shares) <= 100


@pytest.mark.parametrize("file", [file for file in SYSTEMD if file.parent.name == "system"], ids=name_of)
def test_a_credential_is_a_setting_or_a_file_of_the_server(file: Path) -> None:
    loaded = {value.partition(":")[0] for value in options(file)["LoadCredential"]}
    settings = {item.declared.env for item in table_of(all_groups())}

    assert loaded == {"server.crt", "server.key", "ca.crt"} if "nats" in file.name else loaded <= settings


def read_by_openrc(file: Path, folder: Path, then: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Read a script as OpenRC does, with stand-ins of what OpenRC provides, and go on with `then`."""
    said = "#!/bin/sh\necho ${0##*/} $*\n"
    stand_ins = dict.fromkeys(("need", "after", "use", "checkpath", "ebegin", "eend", "supervise-daemon"), said)
    stand_ins["eerror"] = "#!/bin/sh\necho $* >&2\n"
    stand_ins["getent"] = '#!/bin/sh\n[ "$2" != nobody-of-here ] && echo "$2:x:1:1::/home/$2:/bin/sh"\n'
    for name, text in stand_ins.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o700)
    return subprocess.run(
        ["sh", "-uc", f'. "$SCRIPT"; {then}'],
        env={"PATH": f"{folder}:/usr/bin:/bin", "SCRIPT": str(file), "RC_SVCNAME": file.name, **variables},
        capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip


@pytest.mark.parametrize("file", OPENRC, ids=name_of)
def test_openrc_supervises_with_limits(file: Path, tmp_path: Path) -> None:
    assert file.read_text("utf-8").startswith("#!/sbin/openrc-run\n")
    assert os.access(file, os.X_OK)

    shown = 'echo "$supervisor|$command $command_args|$respawn_delay $respawn_period $respawn_max|$retry"; depend'
    found = read_by_openrc(file, tmp_path, shown, membridge_bin="/b", membridge_user="alice")

    runs = file.name.removeprefix("membridge-")
    command = "/b/nats-server --config" if runs == "nats" else f"/b/membridge {runs}|"
    assert found.stderr == ""
    assert found.stdout.startswith(f"supervise-daemon|{command}")
    assert "|10 1200 60|TERM/" in found.stdout
    assert "\nneed net" in found.stdout


@pytest.mark.parametrize("file", [file for file in OPENRC if "nats" not in file.name], ids=name_of)
@pytest.mark.parametrize(("user", "starts"), [("alice", True), ("nobody-of-here", False)])
def test_openrc_starts_only_as_a_user_that_there_is(file: Path, tmp_path: Path, user: str, *, starts: bool) -> None:
    found = read_by_openrc(file, tmp_path, "start_pre", membridge_user=user)

    assert (found.returncode == 0) is starts
    assert f"--owner {user} --mode 0600" in found.stdout if starts else f"there is no user {user}" in found.stderr


def test_openrc_does_not_start_a_node_before_its_user_is_known(tmp_path: Path) -> None:
    found = read_by_openrc(DEPLOY / "openrc" / "membridge-node", tmp_path, "start_pre")

    assert found.returncode != 0
    assert "/etc/conf.d/membridge-node" in found.stderr
    assert 'membridge_user=""' in (DEPLOY / "openrc" / "conf.d" / "membridge-node").read_text("utf-8")


@pytest.mark.parametrize("file", LAUNCHD, ids=name_of)
def test_launchd_restarts_what_failed_and_writes_a_log(file: Path, tmp_path: Path) -> None:
    agent = plistlib.loads(file.read_bytes())
    runs = file.name.removeprefix("org.membridge.").removesuffix(".plist")

    assert agent["Label"] == file.stem
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert (agent["ThrottleInterval"], agent["Umask"], agent["RunAtLoad"]) == (10, 0o077, True)

    home = tmp_path / "a home"
    programs = home / ".local" / "bin"
    programs.mkdir(parents=True)
    for program in ("membridge", "nats-server"):
        (programs / program).write_text('#!/bin/sh\necho "$0" "$@"; echo pid $$; echo trouble >&2\n')
        (programs / program).chmod(0o700)
    started = subprocess.Popen(agent["ProgramArguments"], env={"HOME": str(home), "PATH": "/usr/bin:/bin"})
    assert started.wait(PATIENCE) == 0

    log = (home / "Library" / "Logs" / "membridge" / f"{runs}.log").read_text("utf-8").splitlines()
    program = "nats-server --config" if runs == "nats" else f"membridge {runs}"
    assert log[0].startswith(f"{programs}/{program}")
    # The program is launchd's own child: signals reach it.
    assert log[1:] == [f"pid {started.pid}", "trouble"]


def test_a_wheel_has_these_files(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=DEPLOY.parent, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    wheel = next(tmp_path.glob("*.whl"))
    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", wheel], capture_output=True, text=True, check=True, timeout=PATIENCE
    )

    packaged = set(re.findall(r"^membridge/embedded/(deploy/\S+)", listed.stdout, re.MULTILINE))
    assert {str(file.relative_to(DEPLOY.parent)) for file in [*SYSTEMD, *OPENRC, *LAUNCHD]} <= packaged
