"""The allow list: what may travel, what may not, and what runs code."""

import pytest

from membridge.claudeconfig import rules
from membridge.claudeconfig.rules import Requested


@pytest.mark.parametrize(
    "path",
    [
        "CLAUDE.md", "keybindings.json", "loop.md", "settings.json", "rules/a.md", "skills/x/y/z.py",
        "themes/dark.json",
        "agent-memory/x/notes.md", "workflows/w.js", "hooks/h.sh", "bin/tool", "plans/p.md", "rules/ünïcode.md",
        "memory/github.com/o/n/MEMORY.md",
    ],
)  # fmt: skip
def test_what_is_on_the_list_may_travel(path: str) -> None:
    assert rules.why_not(path) is None


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("history.jsonl", "not on the list"), ("projects/x/a.jsonl", "not on the list"),
        (".credentials.json", "credential"),
        ("rules/../x.md", "leaves"), ("/rules/x.md", "leaves"), ("rules/.git/config", "dot"), ("rules/a~", "leftover"),
        ("rules/x.md.theirs-b-1", "leftover"), ("skills/x/node_modules/a.js", "each machine"),
        ("rules/\udcff.md", "UTF-8"),
        ("rules/a:b.md", "character"), ("rules/con.md", "Windows"), ("rules/x.", "Windows"), ("a" * 600, "too long"),
        ("rules/e\u0301.md", "NFC"), ("plans/x.py", "Markdown"), ("skills/x/server.pem", "credential"),
    ],
)  # fmt: skip
def test_everything_else_stays_and_says_why(path: str, reason: str) -> None:
    assert reason in (rules.why_not(path) or "")


def test_what_is_on_request_needs_one() -> None:
    nothing = Requested()

    assert rules.why_not("plans/p.md", nothing) == "it travels only with --plans"
    assert rules.why_not("memory/h/o/n/MEMORY.md", nothing) == "it travels only with --memory"
    assert rules.why_not("plans/p.md", Requested(plans=True)) is None
    assert rules.why_not("memory/h/o/n/MEMORY.md", Requested(memory=True)) is None


def test_names_that_differ_by_case_alone_collide_also_as_folders() -> None:
    assert rules.colliding(["rules/a.md", "rules/b.md"]) == {}
    assert rules.colliding(["rules/A.md", "rules/a.md", "x.md"]) == {
        "rules/A.md": "rules/a.md",
        "rules/a.md": "rules/A.md",
    }
    assert rules.colliding(["skills/S/a.md", "skills/s/b.md"]) == {
        "skills/S/a.md": "skills/s",
        "skills/s/b.md": "skills/S",
    }


@pytest.mark.parametrize(
    ("path", "text", "marked"),
    [
        ("skills/x/run", "#!/bin/sh\n", False), ("skills/x/a.py", "", False), ("hooks/readme.md", "", False),
        ("bin/tool", "", False), ("rules/a.md", "", True), ("commands/a.md", "Now !`date`.", False),
        ("commands/a.md", "```!\ndate\n```", False), ("agents/a.md", "---\ntools: Bash\n---\n", False),
        ("skills/a/SKILL.md", "---\nname: a\nhooks:\n  Stop: []\n---\n", False),
        ("skills/a/SKILL.md", '---\n"allowed-tools": Bash(git *)\n---\n', False),
    ],
)  # fmt: skip
def test_what_runs_code_is_a_program(path: str, text: str, marked: bool) -> None:
    assert rules.is_program(path, text, marked=marked)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("CLAUDE.md", "Use !`x`."), ("rules/a.md", "---\npaths: src\n---\n"), ("commands/a.md", "Say hello."),
        ("agents/a.md", "---\nname: a\n---\ntools: none"), ("output-styles/o.md", "x"),
    ],
)  # fmt: skip
def test_what_is_only_read_is_no_program(path: str, text: str) -> None:
    assert not rules.is_program(path, text, marked=False)


def test_which_documents_are_merged_by_key_and_which_by_entry() -> None:
    assert all(map(rules.is_json, ("settings.json", "plugins.json", "keybindings.json", "themes/a.json")))
    assert not any(map(rules.is_json, ("skills/a.json", "CLAUDE.md")))
    assert rules.is_list("memory/h/o/n/MEMORY.md")
    assert not any(map(rules.is_list, ("memory/h/o/n/other.md", "rules/MEMORY.md")))
    assert rules.runs("settings.json", "hooks")
    assert rules.runs("plugins.json", "enabledPlugins")
    assert not rules.runs("settings.json", "model")


def test_what_a_shell_runs() -> None:
    assert rules.is_shell("hooks/a.sh", "")
    assert rules.is_shell("bin/tool", "#!/usr/bin/env bash\n")
    assert not rules.is_shell("bin/tool", "#!/usr/bin/env python3\n")
    assert not rules.is_shell("bin/fresh", "#!/opt/fresh\n")
