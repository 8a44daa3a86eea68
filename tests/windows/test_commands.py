"""What each command says on Windows without a server: it runs, or it says in a sentence why not and what to do."""

import asyncio
import json
import re
import sys
import tomllib
from pathlib import Path, PureWindowsPath
from typing import cast

import pytest

from membridge.cli.catalogue import COMMANDS, ON_WINDOWS
from membridge.settings import kinds, places
from membridge.system import files
from tests.windows.machine import ROOT, WindowsMachine

#: A port that nothing listens at.
NOWHERE = {"MEMBRIDGE_NATS_URL": "nats://127.0.0.1:1"}
#: A call of each command that runs on Windows, and its exit code without a server.
CALLS = {
    "api-key": 1, "artifact": 1, "config": 0, "doctor --node b": 1, "jobs": 1, "join LINE": 1, "key": 0, "leader": 1,
    "nats-context": 1, "nodes": 1, "pull --node b": 1, "push --node b": 1, "task": 1, "validate": 0, "worker": 1,
}  # fmt: skip

#: The programs of the package, by name.
PROGRAMS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]


@pytest.fixture
def windows(tmp_path: Path) -> WindowsMachine:
    return WindowsMachine(tmp_path / "windows", dict(NOWHERE))


def test_the_calls_are_all_commands_of_windows() -> None:
    assert {call.split()[0] for call in CALLS} == ON_WINDOWS


@pytest.mark.parametrize("call", CALLS)
async def test_a_command_of_windows_loads_and_ends_without_a_traceback(windows: WindowsMachine, call: str) -> None:
    code, told, complaints = await windows.run(*call.split())

    assert code == CALLS[call], told + complaints
    assert "unexpected" not in complaints
    assert "Traceback" not in complaints
    assert code == 0 or re.fullmatch(r"error: [^\n]+\n  remedy: [^\n]+\n", complaints), complaints


async def test_every_other_command_says_where_it_runs(windows: WindowsMachine) -> None:
    others = [*(COMMANDS.keys() - ON_WINDOWS), "coordinator", "gateway"]

    answers = dict(zip(others, [await windows.run(name, "--json") for name in others], strict=True))

    for name, (code, told, _) in answers.items():
        error = json.loads(told)
        assert (code, error["code"]) == (1, "invalid_request")
        assert error["message"] == f"`membridge {name}` needs a node on this machine, and none runs on Windows"
        assert "WSL 2" in error["remedy"]


@pytest.mark.parametrize(("call", "said"), [
    ("push", "--node NODE"), ("pull", "--node NODE"), ("doctor", "--node NODE"),
    ("nodes members", "the machine of `membridge up --listen`"), ("key seal", "WSL 2"),
])  # fmt: skip
async def test_what_needs_a_node_or_the_server_names_the_remedy(windows: WindowsMachine, call: str, said: str) -> None:
    code, _, complaints = await windows.run(*call.split())

    assert code == 1
    assert re.fullmatch(r"error: [^\n]+\n  remedy: [^\n]+\n", complaints)
    assert said in complaints.splitlines()[1]


@pytest.mark.parametrize("program", sorted(PROGRAMS))
async def test_every_program_that_pip_installs_starts(windows: WindowsMachine, program: str) -> None:
    windows.extra["WINDOWS_PROGRAM"] = PROGRAMS[program]

    code, told, complaints = await windows.run("--help")

    # A status is this machine's node's.
    expected = (1, 2) if program == "cm-status" else (0, 0)
    assert (code, len(complaints.splitlines())) == expected, told + complaints


async def test_what_reads_proc_says_that_it_needs_linux(windows: WindowsMachine) -> None:
    windows.extra["WINDOWS_PROGRAM"] = PROGRAMS["claude-cleanup-safe"]

    assert await windows.run() == (2, "", "error: this needs Linux: other systems do not show who uses a process\n")


async def test_help_lists_what_runs_there_and_the_version_is_ours(windows: WindowsMachine) -> None:
    (_, version, _), (code, told, _) = await windows.run("--version"), await windows.run("--help")

    assert version.startswith("membridge ")
    assert code == 0
    assert set(re.findall(r"^  ([a-z][a-z-]*)  ", told, re.MULTILINE)) == ON_WINDOWS


async def test_files_are_below_the_profile_and_a_key_file_is_made_and_read(windows: WindowsMachine) -> None:
    where = await windows.json("config", "path")
    made = await windows.json("key", "new")
    key_file = windows.roaming / "Membridge" / "sealing.keys"
    key_file.chmod(0o666)  # what Windows says of every file

    windows.extra["MEMBRIDGE_ENCRYPTION_KEY_FILE"] = str(key_file)
    shown = await windows.json("key", "show")

    assert where["files"][0]["path"] == str(windows.roaming / "Membridge" / "config.toml")
    assert made["path"] == str(key_file)
    assert shown["keys"] == made["keys"]
    settings = {one["key"]: one["value"] for one in (await windows.json("config", "show"))["settings"]}
    assert settings["node.state_dir"] == str(windows.local / "Membridge" / "state")


async def test_a_secret_that_a_mode_shows_to_others_is_no_warning_there(windows: WindowsMachine) -> None:
    config = windows.roaming / "Membridge" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[store]\nencryption_passphrase = "a long passphrase"\n')
    config.chmod(0o666)

    code, _, complaints = await windows.run("key")

    assert (code, complaints) == (0, "")


async def test_text_that_the_code_page_of_a_pipe_lacks_is_no_failure(windows: WindowsMachine) -> None:
    windows.extra |= {"CLAUDE_PROJECT_ID": "Проєкт", "PYTHONIOENCODING": "cp1252"}

    code, told, complaints = await windows.run("config")

    assert (code, complaints) == (0, "")
    assert re.search(r"project\.name[ |]+\?{6}[ |]", told)


def test_without_the_variables_of_windows_the_folders_are_where_it_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "on_windows", lambda: True)
    home = Path("/profile")

    assert places.config_folder({"XDG_CONFIG_HOME": "/x"}, home) == home / "AppData" / "Roaming" / "Membridge"
    assert places.state_folder({"LOCALAPPDATA": "not absolute"}, home) == (
        home / "AppData" / "Local" / "Membridge" / "state"
    )


def test_the_folders_and_paths_of_windows_are_read_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the path rules of Windows, which need no Windows."""
    monkeypatch.setattr(places, "on_windows", lambda: True)
    for module in (places, kinds):
        monkeypatch.setattr(module, "Path", PureWindowsPath)
    home = cast("Path", PureWindowsPath(r"C:\Users\me"))

    folder = places.config_folder({"APPDATA": r"C:\Users\me\AppData\Roaming"}, home)

    assert str(folder) == r"C:\Users\me\AppData\Roaming\Membridge"
    assert str(kinds.PATH.parse(r"D:\keys\sealing.keys", home)) == r"D:\keys\sealing.keys"
    assert str(kinds.PATH.parse("~/sealing.keys", home)) == r"C:\Users\me\sealing.keys"
    for relative in (r"\keys", "/keys", "D:keys", "keys"):
        with pytest.raises(ValueError, match=r"^$"):
            kinds.PATH.parse(relative, home)


def test_a_mode_counts_but_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.open_to_others(0o644)
    assert not files.open_to_others(0o600)
    monkeypatch.setattr(files, "on_windows", lambda: True)
    assert not files.open_to_others(0o666)


async def test_the_stand_in_refuses_what_windows_refuses(tmp_path: Path) -> None:
    """Without this the other tests could not fail."""
    script = (
        "from tests.fixtures import windows\n"
        "from pathlib import Path\n"
        "windows.become_windows()\n"
        "import membridge.system.windows as probe\n"
        "exec(Path('probe.py').read_text(), vars(probe))\n"
    )
    probe = (
        "import os, signal, socket\n"
        "for module in ('fcntl', 'pwd', 'uvloop'):\n"
        "    try: __import__(module, globals())\n"
        "    except ModuleNotFoundError: print('absent', module)\n"
        "print(on_windows(), os.name, [hasattr(os, 'getuid'), hasattr(signal, 'SIGHUP'), hasattr(socket, 'AF_UNIX')])\n"
        "try: os.open('.', os.O_RDONLY)\n"
        "except PermissionError: print('no folder')\n"
    )
    (tmp_path / "probe.py").write_text(probe)
    root = str(Path(__file__).parents[2])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, cwd=tmp_path, env={"PYTHONPATH": root}, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await process.communicate()

    assert told.decode().splitlines() == [
        "absent fcntl", "absent pwd", "absent uvloop", "True nt [False, False, False]", "no folder",
    ]  # fmt: skip
