"""What a task may be told: nothing from outside the folder, nothing over the budget, and why what is missing is."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from membridge.aio.deadline import Deadline
from membridge.worker import context
from membridge.worker.context import Context, Piece, Sources
from tests.fixtures.machines import SAMPLE

SECRET = "outside"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project's folder beside a file that is not its own."""
    folder = tmp_path / "project"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "a.md").write_text("alpha")
    (folder / "docs" / "b.md").write_text("beta")
    (folder / ".claude" / "agents").mkdir(parents=True)
    (folder / ".claude" / "agents" / "helper.md").write_text("be helpful")
    (tmp_path / "secret.txt").write_text(SECRET)
    (folder / "link").symlink_to(tmp_path / "secret.txt")
    (folder / "up").symlink_to(tmp_path)
    (folder / "inside").symlink_to(folder / "docs" / "a.md")
    os.mkfifo(folder / "pipe")
    return folder


def prepared(root: Path, *hints: str, budget: int = 0, **more: Path) -> Context:
    return context.prepare(hints, Sources(root=root, **more), budget=budget, deadline=Deadline.after(10.0))


def test_files_globs_and_links_inside(root: Path) -> None:
    found = prepared(root, "docs/a.md", "docs/*.md", "inside", "@agent/helper")
    assert [(piece.source, piece.text) for piece in found.pieces] == [
        ("docs/a.md", "alpha"), ("docs/a.md", "alpha"), ("docs/b.md", "beta"), ("inside", "alpha"),
        ("@agent/helper", "be helpful"),
    ]  # fmt: skip
    assert found.notes == ()


@pytest.mark.parametrize(
    "hint",
    ["../secret.txt", "/etc/passwd", "link", "up/secret.txt", "up/*", "docs/../../secret.txt", "pipe", "docs",
     "nothing", "*.nothing", "@agent/../secret", "@agent/nobody", "@other", "**/../../*", "\0"],
)  # fmt: skip
def test_what_is_refused_is_a_note(root: Path, hint: str) -> None:
    found = prepared(root, hint, "docs/a.md")
    assert [piece.text for piece in found.pieces] == ["alpha"]
    assert len(found.notes) == 1
    assert found.notes[0].startswith(hint)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hint=st.lists(st.sampled_from(["..", ".", "/", "up", "link", "*", "**", "secret.txt", "docs", "~"])).map("/".join)
)
def test_no_path_leads_out(root: Path, hint: str) -> None:
    assert SECRET not in [piece.text for piece in prepared(root, hint or ".").pieces]


def spent(context_of_task: Context) -> int:
    """Return the tokens of all that stands before the prompt."""
    return -(-len(context.render("", context_of_task)) // context.CHARACTERS)


def test_the_earliest_is_dropped_when_all_is_too_much(root: Path) -> None:
    (root / "docs" / "long.md").write_text("x" * 100)
    found = prepared(root, "docs/long.md", "docs/b.md", budget=45)
    assert [piece.text for piece in found.pieces] == ["beta"]
    assert found.notes == ("docs/long.md: left out, the context is full",)
    (root / "large").write_bytes(b"x" * 1_000)
    assert "larger" in prepared(root, "large", budget=50).notes[0]


def test_the_budget_counts_everything_before_the_prompt(root: Path) -> None:
    for number in range(100):
        (root / "docs" / f"file-{number:03}.md").write_text("x" * (number % 37))
    hints = ["docs/*.md", *(f"missing-{number}" for number in range(40)), "docs/a.md", "../outside"]
    used = [(budget, prepared(root, *hints, budget=budget)) for budget in range(1, 1_500, 61)]
    assert [(budget, spent(one)) for budget, one in used if spent(one) > budget] == []
    # What there is room for is used.
    assert max(len(one.pieces) for _, one in used) > 50
    assert all(one.notes for budget, one in used if budget > 20)


def test_a_context_far_over_its_budget_keeps_the_newest_and_names_some_of_the_rest(root: Path) -> None:
    (root / "docs" / "page.md").write_text("x" * 300)
    found = prepared(root, *["docs/page.md"] * 60, budget=200)
    assert len(found.pieces) == 2
    assert found.notes == (f"{', '.join(['docs/page.md'] * 3)} and 55 more: left out, the context is full",)


def test_recent_memories_come_from_the_local_database(root: Path, tmp_path: Path) -> None:
    database = tmp_path / "claude-mem.db"
    shutil.copyfile(SAMPLE, database)
    before = database.read_bytes()
    found = prepared(root, "@memory/recent", database=database)
    assert len(found.pieces) == context.MOST_MEMORIES
    assert {piece.source for piece in found.pieces} == {"@memory/recent"}
    assert database.read_bytes() == before
    assert "no memory" in prepared(root, "@memory/recent").notes[0]


def test_what_the_program_reads() -> None:
    found = Context((Piece("a.md", "alpha"),), ("b.md: there is no such file",))
    assert context.render("do it", found) == (
        '<context source="a.md">\nalpha\n</context>\n\nNot available: b.md: there is no such file\n\ndo it'
    )
