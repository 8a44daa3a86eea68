"""`membridge units`: a unit for the node and for each installed service."""

import json
from pathlib import Path

import pytest

from membridge.cli import main as cli


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, object]]:
    assert cli.main(["units", "--json", *arguments]) == 0
    return {unit["name"]: unit for unit in json.loads(capsys.readouterr().out)["units"]}


def test_the_node_stops_before_the_services_that_its_worker_needs(capsys: pytest.CaptureFixture[str]) -> None:
    units = told(capsys)

    assert set(units) >= {"membridge-nats.service", "membridge-node.service", "membridge-coordinator.service"}
    assert "\nAfter=membridge-nats.service membridge-coordinator.service" in str(
        units["membridge-node.service"]["text"]
    )
    assert "/membridge %j\n" in str(units["membridge-coordinator.service"]["text"])


def test_programs_elsewhere_are_named_in_every_unit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for kind in ("user", "system", "openrc", "launchd"):
        for name, unit in told(capsys, "--for", kind, "--bin", str(tmp_path)).items():
            text = str(unit["text"])
            assert str(tmp_path) in text, name
            assert "/.local/bin/m" not in text, name
            assert "/opt" not in text, name


@pytest.mark.parametrize("enabled", ["0", "1"])
def test_what_the_settings_want_is_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, enabled: str
) -> None:
    monkeypatch.setenv("MEMBRIDGE_COORDINATOR", enabled)

    units = told(capsys, "--into", str(tmp_path / "units"))

    wanted = {"membridge-node.service", *(["membridge-coordinator.service"] if enabled == "1" else [])}
    assert {file.name for file in (tmp_path / "units").iterdir()} == set(units) == wanted
    for name, unit in units.items():
        assert (tmp_path / "units" / name).read_text("utf-8") == unit["text"]


def test_an_unknown_unit_is_an_error_that_names_the_units(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["units", "membridge-nod.service"]) == 1
    assert "membridge-node.service" in capsys.readouterr().err
