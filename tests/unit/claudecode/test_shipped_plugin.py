"""The plugin as it is shipped: one version, one name, a hook for each event, a picture that catalogues accept."""

import json
import struct
import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from membridge import __version__
from membridge.claudecode.place import HOOKS
from membridge.claudecode.plugin import MANIFEST, SHIPPED, shipped

ROOT = Path(__file__).parents[3]
HANDLERS = json.loads((SHIPPED / "hooks" / "hooks.json").read_text("utf-8"))["hooks"]


def test_the_manifest_and_the_marketplace_name_the_plugin() -> None:
    manifest = json.loads((SHIPPED / MANIFEST).read_text("utf-8"))
    market = json.loads((ROOT / ".claude-plugin" / "marketplace.json").read_text("utf-8"))

    assert (manifest["name"], manifest["version"]) == ("membridge", __version__)
    assert manifest["network"] == {"hosts": []}
    assert [(ROOT / plugin["source"]).resolve() for plugin in market["plugins"]] == [SHIPPED.resolve()]
    assert [plugin["name"] for plugin in market["plugins"]] == ["membridge"]


def test_each_event_has_one_hook_and_settings_get_the_same_ones() -> None:
    hooks = {event: hook for event, groups in HANDLERS.items() for group in groups for hook in group["hooks"]}

    assert all(hook["command"] == "/bin/sh" for hook in hooks.values())
    scripts = {event: Path(hook["args"][0]).name for event, hook in hooks.items()}
    assert scripts == {event: script for event, script, _ in HOOKS}
    assert all((SHIPPED / script).is_file() for script in scripts.values())
    assert {event: hook["args"][1:] for event, hook in hooks.items()} == {
        event: [] if script == "session_start.sh" else [event] for event, script in scripts.items()
    }
    assert {event: hook["timeout"] for event, hook in hooks.items()} == {event: most for event, _, most in HOOKS}


def test_only_the_end_of_a_session_waits_for_nobody() -> None:
    # An asynchronous Stop is killed when `claude -p` ends; any other SessionEnd shares 1.5 s with those of all plugins.
    waiting = {event for event, groups in HANDLERS.items() if not groups[0]["hooks"][0].get("async")}

    assert waiting == {"SessionStart", "UserPromptSubmit", "Stop"}


def test_a_wheel_brings_every_file_of_it(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])

    with zipfile.ZipFile(wheel) as archive:
        brought = {name for name in archive.namelist() if name.startswith("hooks/claude-code/")}
    assert brought == {f"hooks/claude-code/{path.as_posix()}" for path in shipped(SHIPPED)}


def test_the_picture_is_a_square_of_512() -> None:
    content = (SHIPPED / "icon.png").read_bytes()

    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", content[16:24]) == (512, 512)
