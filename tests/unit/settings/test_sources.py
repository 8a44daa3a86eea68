"""What is read from the old tool's `config.env`."""

from pathlib import Path

import pytest

from membridge.errors import SettingsError
from membridge.settings import all_groups
from membridge.settings.sources import from_legacy
from membridge.settings.table import table_of

PATH = Path("/h/config.env")
TABLE = table_of(all_groups())


def value(text: str, environ: dict[str, str] | None = None) -> object:
    return from_legacy(text, PATH, environ or {}, TABLE).values["store.bucket"].value


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("MINIO_BUCKET=plain", "plain"),
        ("export MINIO_BUCKET=plain", "plain"),
        ('MINIO_BUCKET="two words"', "two words"),
        ("MINIO_BUCKET='$HOME `x`'", "$HOME `x`"),
        ('MINIO_BUCKET="a\\"b\\$c\\\\d\\e"', 'a"b$c\\d\\e'),
        ("MINIO_BUCKET=a\\ b", "a b"),
        ("MINIO_BUCKET=a'b c'\"d\"", "ab cd"),
        ("MINIO_BUCKET=plain # a comment", "plain"),
        ("MINIO_BUCKET=with#hash", "with#hash"),
        ("MINIO_BUCKET=plain;", "plain"),
        ("MINIO_BUCKET=windows\r", "windows"),
        ("MINIO_BUCKET=", ""),
        ("MINIO_BUCKET=first\nMINIO_BUCKET=second", "second"),
    ],
)
def test_an_assignment_means_what_it_means_to_a_shell(written: str, meant: str) -> None:
    assert value(written) == meant


def test_variables_are_filled_from_earlier_lines_and_the_environment() -> None:
    assert value('ROOT=$HOME/x\nMINIO_BUCKET="${ROOT}/y $UNSET."', {"HOME": "/h"}) == "/h/x/y ."


@pytest.mark.parametrize("written", ["$(touch /tmp/x)", "`id`", '"$(id)"', '"open', "a b", "a | b", "${X:-y}", "a > b"])
def test_what_would_need_a_shell_is_refused_and_not_run(written: str) -> None:
    with pytest.raises(SettingsError, match=r"MINIO_BUCKET in /h/config.env line 2: must be plain text") as caught:
        from_legacy(f"# old\nMINIO_BUCKET={written}", PATH, {}, TABLE)

    assert caught.value.field == "store.bucket"


def test_other_lines_are_left_out_with_a_warning() -> None:
    found = from_legacy("set -a\nPATH=$(brew)/bin\n  # note\n\nMINIO_REGION=r\nif true; then", PATH, {}, TABLE)

    assert {key: raw.value for key, raw in found.values.items()} == {"store.region": "r"}
    assert found.warnings == (
        "/h/config.env line 1 is not KEY=value and was skipped",
        "/h/config.env line 6 is not KEY=value and was skipped",
    )
