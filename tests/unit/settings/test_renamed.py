"""Sections by their former names: `[worker]` was claude-mem's process, `[executor]` what `[worker]` is now."""

from pathlib import Path

import pytest

from membridge.errors import SettingsError
from membridge.settings import Settings, all_groups, load
from membridge.settings.sources import FORMER_KEYS
from membridge.settings.table import table_of

TABLE = table_of(all_groups())
OLD_CLAUDE_MEM = "[worker]\nno_restart = true\nallow_process_control = true\ndryrun = true\n"
OLD_WORKER = '[executor]\nenabled = true\nmax_concurrency = 3\nroot = "~/tasks"\n'
NEW_CLAUDE_MEM = OLD_CLAUDE_MEM.replace("[worker]", "[claude_mem]")
NEW_WORKER = OLD_WORKER.replace("[executor]", "[worker]")


def read(home: Path, text: str, environ: dict[str, str] | None = None) -> Settings:
    path(home).parent.mkdir(parents=True, exist_ok=True)
    path(home).write_text(text, encoding="utf-8")
    return load(environ or {}, home)


def path(home: Path) -> Path:
    return home / ".config" / "membridge" / "config.toml"


def moved(home: Path, fields: str, former: str, group: str) -> str:
    return f"{fields} of [{former}] in {path(home)} moved to [{group}]: write them there"


def test_no_former_key_is_a_key_of_today() -> None:
    assert FORMER_KEYS.keys().isdisjoint(item.key for item in TABLE)
    assert set(FORMER_KEYS.values()) == {item.key for item in TABLE if item.group in {"worker", "claude_mem"}}


@pytest.mark.parametrize(
    "text",
    [
        OLD_CLAUDE_MEM + OLD_WORKER,
        NEW_CLAUDE_MEM + NEW_WORKER,
        OLD_WORKER + NEW_CLAUDE_MEM,
        NEW_WORKER + "no_restart = true\nallow_process_control = true\ndryrun = true\n",
        NEW_WORKER + OLD_WORKER + NEW_CLAUDE_MEM,
    ],
    ids=["old", "new", "mixed", "one section for both", "twice the same"],
)
def test_old_new_and_mixed_files_mean_the_same(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text)

    assert (found.worker.enabled, found.worker.max_concurrency, found.worker.root) == (True, 3, tmp_path / "tasks")
    assert found.claude_mem.no_restart
    assert found.claude_mem.allow_process_control
    assert found.claude_mem.dryrun
    assert found.origins["worker.root"] == found.origins["claude_mem.dryrun"] == str(path(tmp_path))


def test_each_old_section_is_warned_of_with_what_to_write(tmp_path: Path) -> None:
    assert read(tmp_path, OLD_CLAUDE_MEM + OLD_WORKER).warnings == (
        moved(tmp_path, "no_restart, allow_process_control, dryrun", "worker", "claude_mem"),
        moved(tmp_path, "enabled, max_concurrency, root", "executor", "worker"),
    )
    assert read(tmp_path, NEW_WORKER + "dryrun = true\n").warnings == (
        moved(tmp_path, "dryrun", "worker", "claude_mem"),
    )


def test_a_file_of_today_warns_of_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, NEW_CLAUDE_MEM + NEW_WORKER + "[executor]\n").warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        "[executor]\nmax_concurrency = 2\n[worker]\nmax_concurrency = 3\n",
        "[worker]\nmax_concurrency = 3\n[executor]\nmax_concurrency = 2\n",
    ],
)
def test_two_values_for_one_key_are_refused_with_what_to_write(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)

    assert caught.value.field == "worker.max_concurrency"
    assert caught.value.message == (
        f"worker.max_concurrency and executor.max_concurrency in {path(tmp_path)} differ, and executor.max_concurrency "
        "is the old name of worker.max_concurrency"
    )
    assert caught.value.remedy == "keep worker.max_concurrency and remove executor.max_concurrency"


def test_a_wrong_value_is_named_as_the_file_spells_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^executor\.max_concurrency = 99 in .*: must be a whole number") as caught:
        read(tmp_path, "[executor]\nmax_concurrency = 99\n")

    assert caught.value.field == "worker.max_concurrency"


@pytest.mark.parametrize("text", ["[executor]\nroots = 1\n", "[worker]\nroots = 1\n"])
def test_a_slip_in_a_section_of_either_name_leads_to_the_key_of_today(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"roots in .* is not a setting: did you mean worker\.root\?"):
        read(tmp_path, text)


def test_the_environment_wins_over_a_section_of_either_name_and_kept_its_names(tmp_path: Path) -> None:
    environ = {
        "MEMBRIDGE_WORKER": "0",
        "MEMBRIDGE_WORKER_CONCURRENCY": "5",
        "MEMBRIDGE_AGENT_DRYRUN": "0",
        "MEMBRIDGE_NO_RESTART_WORKER": "0",
        "MEMBRIDGE_ALLOW_PROCESS_CONTROL": "0",
    }
    for text in (OLD_CLAUDE_MEM + OLD_WORKER, NEW_CLAUDE_MEM + NEW_WORKER):
        found = read(tmp_path, text, environ)

        assert (found.worker.enabled, found.worker.max_concurrency) == (False, 5)
        assert not found.claude_mem.dryrun
        assert not found.claude_mem.no_restart
        assert not found.claude_mem.allow_process_control
        assert not [warning for warning in found.warnings if "MEMBRIDGE_" in warning]
