"""Auto memory travels by the repository that it belongs to, wherever its clones are."""

import json
import os
import subprocess
from pathlib import Path

from membridge.claudeconfig import memory_folders
from membridge.claudeconfig.rules import Requested
from membridge.claudeconfig.three_sides import Wanted
from tests.integration.claudeconfig.conftest import Machine, Machines


def clone(machine: Machine, name: str, remote: str) -> Path:
    """Make a repository in the machine's home that Claude Code has in its list of projects."""
    path = machine.place.home / name
    path.mkdir(parents=True)
    environment = {"HOME": str(machine.place.home), "PATH": "/usr/bin:/bin:/usr/local/bin"}
    for arguments in (["init", "-q"], ["remote", "add", "origin", remote]):
        subprocess.run(["git", "-C", str(path), *arguments], check=True, env=environment)
    listed = machine.place.home / ".claude.json"
    known = json.loads(listed.read_text()) if listed.exists() else {"projects": {}, "oauthAccount": {"x": 1}}
    known["projects"][str(path)] = {}
    listed.write_text(json.dumps(known))
    return path


def folder_name(path: Path) -> str:
    """Return the name of a project's folder."""
    return "".join(letter if letter.isalnum() else "-" for letter in str(path))


def memory_of(path: Path) -> str:
    """Return where Claude Code keeps the memory of a project, below its folder."""
    return f"projects/{folder_name(path)}/memory"


def with_memory(machine: Machine, *aliases: str) -> None:
    """Let the machine ask for auto memory."""
    known = memory_folders.save_aliases(machine.place.state, aliases)
    found = memory_folders.find(machine.place, known, machine.place.home)
    machine.wanted = Wanted(Requested(memory=True), folders=found.folders, elsewhere=tuple(found.refused))


async def test_the_memory_of_a_repository_reaches_its_clone_elsewhere(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    here = clone(a, "work", "git@github.com:Owner/Name.git")
    there = clone(b, "src/elsewhere", "https://user@github.com/owner/name")
    a.write(f"{memory_of(here)}/MEMORY.md", "- [Build](build.md): how to build\n- Uses pnpm\n")
    a.write(f"{memory_of(here)}/build.md", "Run make.\n")
    a.write(f"{memory_of(here)}/notes.txt", "not Markdown")
    a.write(f"projects/{here.name}/session.jsonl", "{}")
    with_memory(a)
    with_memory(b)
    assert set(a.wanted.folders) == {"memory/github.com/owner/name"}

    await a.push()
    await b.pull()

    assert sorted(b.tree()) == [f"{memory_of(there)}/MEMORY.md", f"{memory_of(there)}/build.md"]
    assert b.text(f"{memory_of(there)}/build.md") == "Run make.\n"
    # Both write to the index; entries of both stay, in either direction.
    a.write(f"{memory_of(here)}/MEMORY.md", "- [Build](build.md): make -j\n- Uses pnpm\n- Learned on a\n")
    b.write(f"{memory_of(there)}/MEMORY.md", "- Learned on b\n- [Build](build.md): how to build\n- Uses pnpm\n")
    await a.push()
    await b.push()
    await b.pull()
    await a.pull()
    index = b.text(f"{memory_of(there)}/MEMORY.md")
    assert index == "- Learned on b\n- [Build](build.md): make -j\n- Uses pnpm\n- Learned on a\n"
    assert set(a.text(f"{memory_of(here)}/MEMORY.md").splitlines()) == set(index.splitlines())
    assert (await a.push(), await b.push()) == (None, None)


async def test_an_entry_that_both_changed_is_kept_twice(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    here, there = (clone(one, "work", "ssh://git@host.example:2222/o/n.git") for one in (a, b))
    a.write(f"{memory_of(here)}/MEMORY.md", "# Index\n\n- [Build](build.md): one\n")
    with_memory(a)
    with_memory(b)
    await a.push()
    await b.pull()
    a.write(f"{memory_of(here)}/MEMORY.md", "# Index\n\n- [Build](build.md): of a\n")
    b.write(f"{memory_of(there)}/MEMORY.md", "# Index\n\n- [Build](build.md): of b\n")
    await a.push()
    await b.pull()

    assert (
        b.text(f"{memory_of(there)}/MEMORY.md") == "# Index\n\n- [Build](build.md): of b\n- [Build](build.md): of a\n"
    )
    assert sorted(b.tree()) == [f"{memory_of(there)}/MEMORY.md"]


async def test_a_machine_without_the_clone_takes_nothing_and_deletes_nothing(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    here = clone(a, "work", "git@host.example:o/n.git")
    a.write(f"{memory_of(here)}/MEMORY.md", "- One\n")
    a.write("CLAUDE.md", "x\n")
    with_memory(a)
    with_memory(b)
    await a.push()
    seen = await b.look()
    await b.pull()
    b.write("CLAUDE.md", "y\n")
    await b.push(delete=True)

    assert sorted(b.tree()) == ["CLAUDE.md"]
    assert [(one.path, one.expected) for one in seen.refused] == [("memory/host.example/o/n", True)]
    await a.pull(delete=True)
    assert a.text(f"{memory_of(here)}/MEMORY.md") == "- One\n"


async def test_a_folder_without_a_remote_travels_by_its_alias(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    paths = [one.place.home / name for one, name in ((a, "notes"), (b, "elsewhere"))]
    for path in paths:
        path.mkdir()
    a.write(f"{memory_of(paths[0])}/MEMORY.md", "- One\n")
    with_memory(a, f"notes={paths[0]}")
    with_memory(b, f"notes={paths[1]}")
    await a.push()
    await b.pull()

    assert b.text(f"{memory_of(paths[1])}/MEMORY.md") == "- One\n"
    # The next run remembers it.
    with_memory(b)
    assert set(b.wanted.folders) == {"memory/alias/notes"}
    assert await b.push() is None


async def test_a_folder_with_a_cut_name_is_found_once_claude_code_made_it(machines: Machines) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    deep = "/".join(["x" * 60] * 4)
    paths = [clone(one, deep, "git@host.example:o/n.git") for one in (a, b)]
    cut = [f"projects/{folder_name(path)[:200]}-abc123/memory" for path in paths]
    a.write(f"{cut[0]}/MEMORY.md", "- One\n")
    with_memory(a)
    with_memory(b)
    await a.push()
    await b.pull()
    assert b.tree() == {}
    assert any("start `claude` there once" in one.reason for one in b.wanted.elsewhere)
    (b.place.config / cut[1]).parent.mkdir(parents=True)
    with_memory(b)
    await b.pull()
    assert b.text(f"{cut[1]}/MEMORY.md") == "- One\n"


async def test_of_two_clones_the_one_that_changed_last_is_used(machines: Machines) -> None:
    a = await machines.make("a")
    older, newer = (clone(a, name, "git@host.example:o/n.git") for name in ("older", "newer"))
    for path, at in ((older, 1_000_000), (newer, 2_000_000)):
        os.utime(a.write(f"{memory_of(path)}/MEMORY.md", f"- {path.name}\n"), (at, at))
    with_memory(a)
    await a.push()

    seen = await a.look()
    assert seen.theirs["memory/host.example/o/n/MEMORY.md"].body == b"- newer\n"
    assert [one.path for one in a.wanted.elsewhere] == [memory_of(older)]
