"""Bodies written by any release still decode, and mean what they meant."""

import json
from pathlib import Path

import msgspec
import pytest

import membridge
from tests.wire.golden import FOLDER, example, path_of, wire_types

FILES = sorted(FOLDER.glob("*.json"))
TYPES = wire_types()


def kind_of(file: Path) -> type[msgspec.Struct]:
    return TYPES[file.stem.split("-")[0]]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_body_of_any_release_decodes_to_the_same_facts(file: Path) -> None:
    written = json.loads(file.read_bytes())

    read = msgspec.json.decode(file.read_bytes(), type=kind_of(file))

    now = json.loads(msgspec.json.encode(read))
    assert {name: now[name] for name in written} == written


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_body_with_fields_of_a_later_release_decodes(file: Path) -> None:
    later = json.loads(file.read_bytes()) | {"field_of_a_later_release": {"deep": [1, 2]}}

    read = msgspec.json.decode(json.dumps(later), type=kind_of(file))

    assert read == msgspec.json.decode(file.read_bytes(), type=kind_of(file))


@pytest.mark.parametrize("name", TYPES)
def test_every_type_has_its_golden_file_of_this_release(name: str) -> None:
    file = path_of(name)

    assert file.exists(), "run `just golden`"
    assert set(json.loads(file.read_bytes())) == set(json.loads(example(TYPES[name]))), (
        f"{name} changed: run `just golden` unless {membridge.__version__} is released; then raise the version first"
    )
