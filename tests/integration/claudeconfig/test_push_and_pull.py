"""Two machines share their configuration: what travels, what stays, and what a merge of both makes."""

import json

import pytest

from membridge.claudeconfig.three_way import Decision
from membridge.errors import ConflictError, NotFoundError
from tests.integration.claudeconfig.conftest import Machines

#: What is in a home and must never leave it.
PRIVATE = {
    ".credentials.json": '{"claudeAiOauth": {"accessToken": "x"}}',
    "settings.local.json": '{"permissions": {"allow": ["Bash(*)"]}}',
    "history.jsonl": '{"display": "a prompt"}',
    "projects/-home-me-work/session.jsonl": '{"type": "user"}',
    "projects/-home-me-work/memory/MEMORY.md": "- [a](a.md)\n",
    "plugins/installed_plugins.json": '{"path": "/somewhere"}',
    "todos/1.json": "[]",
    "shell-snapshots/snapshot.sh": "export A=1",
    "brand-new-in-3.0/file.md": "new",
    "plans/plan.md": "a plan",
}


async def test_what_is_portable_travels_and_nothing_else(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    for path, text in PRIVATE.items():
        a.write(path, text)
    a.write("CLAUDE.md", "Be brief.\n")
    a.write("rules/go.md", "Use gofmt.\n")
    a.write("skills/review/SKILL.md", "---\nname: review\n---\nReview.\n")
    a.write("skills/review/check.sh", "#!/bin/sh\nexit 0\n", mode=0o755)
    a.write("skills/dropped/.claude-plugin/plugin.json", "{}")
    a.write("skills/dropped/SKILL.md", "of a tool")
    a.settings({
        "model": "opus",
        "env": {"ANTHROPIC_API_KEY": "sk-ant-api03-aaaaaaaaaaaaaaaaaaaaaaaa"},
        "apiKeyHelper": "/bin/helper",
        "permissions": {"allow": ["Bash(git:*)"], "deny": ["Read(.env)"]},
        "newInVersion3": True,
    })  # fmt: skip

    assert await a.push() is not None
    taken = await b.pull()

    assert {path: body for path, (body, _) in b.tree().items() if path != "settings.json"} == {
        "CLAUDE.md": b"Be brief.\n",
        "rules/go.md": b"Use gofmt.\n",
        "skills/review/SKILL.md": b"---\nname: review\n---\nReview.\n",
        "skills/review/check.sh": b"#!/bin/sh\nexit 0\n",
    }
    assert b.read_settings() == {"model": "opus", "permissions": {"deny": ["Read(.env)"]}}
    assert b.tree()["skills/review/check.sh"][1] & 0o111
    assert [one.path for one in taken.plan.of(Decision.TAKE) if one.program] == ["skills/review/check.sh"]
    assert await a.push() is None
    assert await b.push() is None


async def test_each_side_takes_what_the_other_one_changed(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    a.write("CLAUDE.md", "one\n")
    a.write("rules/a.md", "a\n")
    a.settings({"model": "opus", "language": "en", "cleanupPeriodDays": 30})
    await a.push()
    await b.pull()
    a.write("rules/a.md", "a, changed on a\n")
    a.settings({"model": "sonnet", "language": "en", "cleanupPeriodDays": 30})
    b.write("rules/b.md", "b\n")
    b.settings({"zz": {"mine": 1}, "model": "opus", "cleanupPeriodDays": 7, "language": "en"})
    await a.push()
    await b.push()
    await b.pull()
    await a.pull()

    assert (a.text("rules/a.md"), a.text("rules/b.md")) == ("a, changed on a\n", "b\n")
    assert (b.text("rules/a.md"), b.text("rules/b.md")) == ("a, changed on a\n", "b\n")
    assert a.read_settings() == {"model": "sonnet", "language": "en", "cleanupPeriodDays": 7}
    # The order of the file and what we do not know stay.
    assert list(b.read_settings().items()) == [
        ("zz", {"mine": 1}), ("model", "sonnet"), ("cleanupPeriodDays", 7), ("language", "en"),
    ]  # fmt: skip
    assert await a.push() is None
    assert await b.push() is None


async def test_what_both_changed_stays_with_the_other_version_beside_it(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    a.write("CLAUDE.md", "one\n")
    a.settings({"model": "opus"})
    await a.push()
    await b.pull()
    a.write("CLAUDE.md", "of a\n")
    a.settings({"model": "sonnet"})
    b.write("CLAUDE.md", "of b\n")
    b.settings({"model": "haiku"})
    await a.push()

    with pytest.raises(ConflictError, match=r"CLAUDE\.md, settings\.json \(model\)") as refused:
        await b.push()
    assert "claude-config pull" in refused.value.remedy
    taken = await b.pull()

    assert b.text("CLAUDE.md") == "of b\n"
    assert b.read_settings() == {"model": "haiku"}
    assert taken.settled.beside == ["CLAUDE.md.theirs-a-2", "settings.json.theirs-a-2"]
    assert b.text("CLAUDE.md.theirs-a-2") == "of a\n"
    assert json.loads(b.text("settings.json.theirs-a-2")) == {"model": "sonnet"}
    # The versions beside stay here; ours is ahead now.
    head = await b.push()
    assert head is not None
    assert [one.path for one in (await a.pull()).plan.changes] == ["CLAUDE.md", "settings.json"]
    assert (a.text("CLAUDE.md"), a.read_settings()) == ("of b\n", {"model": "haiku"})
    assert sorted(a.tree()) == ["CLAUDE.md", "settings.json"]


async def test_two_machines_that_never_met_lose_nothing(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    with pytest.raises(NotFoundError, match="no machine has pushed"):
        await a.pull()
    a.write("CLAUDE.md", "of a\n")
    b.write("CLAUDE.md", "of b\n")
    b.write("rules/b.md", "b\n")
    await a.push()
    with pytest.raises(ConflictError):
        await b.push()
    await b.pull()

    assert b.text("CLAUDE.md") == "of b\n"
    assert b.text("CLAUDE.md.theirs-a-1") == "of a\n"


async def test_deletions_travel_on_request_alone(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    for name in ("a", "b", "c"):
        a.write(f"rules/{name}.md", f"{name}\n")
    a.settings({"model": "opus", "language": "en"})
    await a.push()
    await b.pull()
    (a.place.config / "rules/a.md").unlink()
    a.settings({"language": "en"})

    assert await a.push() is None
    assert await a.push(delete=True) is not None
    await b.pull()
    assert sorted(b.tree()) == ["rules/a.md", "rules/b.md", "rules/c.md", "settings.json"]
    # What was deleted elsewhere does not come back from a machine that kept it.
    b.write("rules/d.md", "d\n")
    await b.push()
    assert (await a.pull()).plan.changes != []
    assert sorted(a.tree()) == ["rules/b.md", "rules/c.md", "rules/d.md", "settings.json"]
    assert a.read_settings() == {"language": "en"}
    # A file that was changed meanwhile is not deleted.
    (a.place.config / "rules/b.md").unlink()
    await a.push(delete=True)
    b.write("rules/b.md", "changed on b\n")
    await b.pull(delete=True)
    assert sorted(b.tree()) == ["rules/b.md", "rules/c.md", "rules/d.md", "settings.json"]
    assert b.read_settings() == {"language": "en"}


async def test_programs_come_only_with_consent_and_are_offered_again(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    a.write("hooks/stop.sh", "#!/bin/sh\n", mode=0o755)
    a.write("commands/status.md", "State: !`git status`\n")
    a.write("commands/plain.md", "Say hello.\n")
    a.settings({
        "model": "opus",
        "hooks": {"Stop": [{"hooks": [{"type": "command", "command": f"{a.place.config}/hooks/stop.sh"}]}]},
    })  # fmt: skip
    await a.push()

    refused = await b.pull(programs=False)
    assert {(one.path, one.key) for one in refused.declined} == {
        ("hooks/stop.sh", ""), ("commands/status.md", ""), ("settings.json", "hooks.Stop"),
    }  # fmt: skip
    assert sorted(b.tree()) == ["commands/plain.md", "settings.json"]
    assert b.read_settings() == {"model": "opus"}
    assert await b.push() is None
    await b.pull()
    assert b.read_settings()["hooks"] == {
        "Stop": [{"hooks": [{"type": "command", "command": "$HOME/.claude/hooks/stop.sh"}]}]
    }
    assert sorted(b.tree()) == ["commands/plain.md", "commands/status.md", "hooks/stop.sh", "settings.json"]
    assert await b.push() is None
    assert await a.push() is None


async def test_hooks_of_one_machine_stay_behind_those_that_travel(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    own = {"matcher": "", "hooks": [{"type": "command", "command": "/opt/tool/hook --now"}]}
    shared = {"matcher": "", "hooks": [{"type": "command", "command": "echo done"}]}
    a.settings({"hooks": {"Stop": [shared]}})
    b.settings({"hooks": {"Stop": [own], "SessionStart": [own]}})
    await a.push()
    await b.pull()

    assert b.read_settings() == {"hooks": {"Stop": [shared, own], "SessionStart": [own]}}
    assert await b.push() is None
    seen = await b.look()
    assert {one.key for one in seen.ours.refused} == {"hooks.Stop[1]", "hooks.SessionStart[0]"}


async def test_a_setting_of_one_machine_is_not_replaced_by_the_one_that_travels(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    a.settings({
        "model": "opus", "statusLine": {"type": "command", "command": "echo a"}, "permissions": {"deny": ["WebFetch"]},
    })  # fmt: skip
    own = {
        "statusLine": {"type": "command", "command": "/opt/line"},
        "permissions": {"deny": [f"Read({b.place.home}/x)"], "allow": ["Bash"]},
    }
    b.settings(own)
    await a.push()
    await b.pull(delete=True)

    assert b.read_settings() == {**own, "model": "opus"}
    assert await b.push(delete=True) is None
    await a.pull(delete=True)
    assert set(a.read_settings()) == {"model", "statusLine", "permissions"}
