"""Mechanisms that have one place: production code elsewhere uses that place and has no copy of it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = [path for package in ("membridge", "services", "schemas") for path in sorted((ROOT / package).rglob("*.py"))]

#: What a copy would write, and the modules that are the place.
PLACES = {
    r"datetime\.(now|utcnow)\(|\.fromisoformat\(": {"membridge/system/clock.py"},
    r"CLOCK_BOOTTIME": {"membridge/system/boottime.py"},
    r"\berr_code\b": {"membridge/bus/errors.py"},
    # The second one runs without a package, where it removes them.
    r"\bfsync\(": {"membridge/system/files.py", "membridge/installation/windows_client.py"},
    r"\}…": {"schemas/wire.py"},
}


@pytest.mark.parametrize("mechanism", PLACES)
def test_a_mechanism_has_one_place(mechanism: str) -> None:
    found = {str(path.relative_to(ROOT)) for path in MODULES if re.search(mechanism, path.read_text("utf-8"))}

    assert found == PLACES[mechanism]
