"""What people are shown of the settings."""

from pathlib import Path

from membridge.settings import all_groups, load, render_reference, shown
from membridge.settings.table import table_of

TABLE = table_of(all_groups())


def test_each_setting_is_shown_with_its_source_and_secrets_masked(tmp_path: Path) -> None:
    environ = {"MINIO_ENDPOINT": "http://m:9000", "MINIO_ACCESS_KEY": "a-hunter", "MINIO_SECRET_KEY": "s-hunter"}

    lines = {line.key: line for line in shown(load(environ, tmp_path))}

    assert set(lines) == {item.key for item in TABLE}
    assert (lines["store.secret_key"].value, lines["store.secret_key"].origin) == ("***", "env MINIO_SECRET_KEY")
    assert lines["lane.auto_sync"].value == "true"
    assert lines["lane.quiet_seconds"].unit == "seconds"
    assert "hunter" not in str(lines)


def test_further_projects_are_shown(tmp_path: Path) -> None:
    path = tmp_path / ".config/membridge/config.toml"
    path.parent.mkdir(parents=True)
    path.write_text('[[projects]]\nname = "work"\ndatabase = "/w.db"\n', encoding="utf-8")

    lines = {line.key: line for line in shown(load({}, tmp_path))}

    assert (lines["projects[0].name"].value, lines["projects[0].name"].origin) == (
        "work",
        str(path),
    )


def test_no_two_settings_share_a_name() -> None:
    assert len({item.key for item in TABLE}) == len(TABLE)
    assert len({item.declared.env for item in TABLE}) == len(TABLE)


def test_the_reference_has_a_heading_for_each_setting() -> None:
    page = render_reference()

    for item in TABLE:
        assert f"\n### {item.key}\n\n{item.declared.meaning}\n" in page
        assert f"`{item.declared.env}`" in page
