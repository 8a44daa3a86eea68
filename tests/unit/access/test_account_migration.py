"""What the server keeps moves between the global account and a project's: whole, only where it is clear whose it is."""

from pathlib import Path

import pytest

from membridge.access import account_migration
from membridge.access.account_migration import GLOBAL
from membridge.access.server_config import account_of
from membridge.system.files import FileAccessError
from schemas.identity import ProjectId, canonical_id

ONE, OTHER = canonical_id("one"), canonical_id("other")


def kept(server: Path) -> dict[str, list[str]]:
    """Return the streams of each account."""
    store = server / "jetstream"
    return {account.name: sorted(path.name for path in account.rglob("*.blk")) for account in store.iterdir()}


def keep(server: Path, account: str, stream: str) -> None:
    folder = server / "jetstream" / account / "streams" / stream
    folder.mkdir(parents=True)
    (folder / f"{stream}.blk").touch()


def test_one_project_takes_everything_along_and_back(tmp_path: Path) -> None:
    keep(tmp_path, GLOBAL, "EVENTS")

    account_migration.out_of_accounts(tmp_path, [ONE])
    assert kept(tmp_path) == {GLOBAL: ["EVENTS.blk"]}
    for _ in range(2):
        account_migration.into_accounts(tmp_path, [ONE])
        assert kept(tmp_path) == {account_of(ONE): ["EVENTS.blk"]}
    account_migration.out_of_accounts(tmp_path, [ONE])
    assert kept(tmp_path) == {GLOBAL: ["EVENTS.blk"]}


def test_what_both_have_stays_where_it_is(tmp_path: Path) -> None:
    keep(tmp_path, GLOBAL, "EVENTS")
    keep(tmp_path, account_of(ONE), "JOBS")

    account_migration.into_accounts(tmp_path, [ONE])
    account_migration.out_of_accounts(tmp_path, [ONE])

    assert kept(tmp_path) == {GLOBAL: ["EVENTS.blk"], account_of(ONE): ["JOBS.blk"]}


@pytest.mark.parametrize("projects", [[], [ONE, OTHER]])
def test_of_several_projects_none_gets_the_others_memory(tmp_path: Path, projects: list[ProjectId]) -> None:
    keep(tmp_path, GLOBAL, "EVENTS")

    account_migration.into_accounts(tmp_path, projects)

    assert kept(tmp_path) == {GLOBAL: ["EVENTS.blk"]}


def test_a_first_start_has_nothing_to_move(tmp_path: Path) -> None:
    account_migration.into_accounts(tmp_path, [ONE])

    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(tmp_path, GLOBAL, "EVENTS")

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(FileAccessError, match="Input/output error"):
        account_migration.into_accounts(tmp_path, [ONE])
