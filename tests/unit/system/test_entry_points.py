"""Entry points are the ones that importlib.metadata finds."""

import importlib.metadata
import sys
from pathlib import Path

import pytest

from membridge.system.entry_points import entry_points, resolve


@pytest.mark.parametrize("group", ["membridge.services", "console_scripts", "pytest11", "nobody.has.this"])
def test_the_installed_ones_are_found(group: str) -> None:
    known = {point.name: point.value for point in importlib.metadata.entry_points(group=group)}
    plain = {name: value for name, value in known.items() if ":" in value and "[" not in value}

    assert entry_points(group).items() >= plain.items()
    assert set(entry_points(group)) <= set(known)


def test_the_first_on_the_path_wins_and_other_lines_are_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, target in (("first", "a.b:C.d"), ("second", "x:y")):
        folder = tmp_path / name / "some-1.0.dist-info"
        folder.mkdir(parents=True)
        text = f"[other]\nno = x:y\n\n[g]\n# none = x:y\none={target}\n  {name} = x:y \nbroken\nno_attribute = x\n[h]\n"
        (folder / "entry_points.txt").write_text(text, encoding="utf-8")
    (tmp_path / "unreadable.egg-info").write_bytes(b"\xff")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second"), str(tmp_path), "/no/such"])

    assert entry_points("g") == {"one": "a.b:C.d", "first": "x:y", "second": "x:y"}


def test_what_an_entry_point_names_is_imported() -> None:
    assert resolve("pathlib:Path.home") == Path.home
