"""The golden files: one JSON body for each wire type and release, which must decode for ever.

`python -m tests.wire.golden` writes the files of the current release; those of an earlier one are never touched again.
"""

import importlib
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import inspect

import membridge
import membridge.snapshot.legacy
import schemas
from schemas.events import Event
from schemas.wire import Wire

FOLDER = Path(__file__).parent

#: A text for each pattern that a wire field may be bound to, without the anchor at its end.
TEXTS: dict[str, str] = {
    "": 'text, quoted "so", with ünïcode',
    "^[0-9a-f]{16}": "a1b2c3d4e5f60718",
    "^[0-9a-f]{32}": "00112233445566778899aabbccddeeff",
    "^[0-9a-f]{64}": "0123456789abcdef" * 4,
    "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": "01234567-89ab-4cde-8f01-23456789abcd",
    "^[A-Za-z0-9_-]{1,64}": "node-a",
    "^[A-Za-z0-9][A-Za-z0-9_.:=-]{0,62}": "gpu=none",
    "^(list|retry|drop)": "retry",
    r"^(\*|[a-z][a-z0-9_]{0,31})": "tasks",
    "^[0-9]{1,16}-[0-9a-f]{8}\\.db": "12-0a1b2c3d.db",
    "^[a-z2-7]{12}": "abcdefgh2345",
    "^U[A-Z2-7]{55}": "U" + "ABCDE" * 11,
}


def wire_types() -> dict[str, type[msgspec.Struct]]:
    """Return every struct that crosses a process boundary, by its name."""
    for module in pkgutil.iter_modules(schemas.__path__):
        importlib.import_module(f"schemas.{module.name}")
    # What the commands print is theirs; what crosses between nodes, or stays in a store, is checked for ever.
    shared = [kind for kind in _subclasses(Wire) if kind.__module__.startswith(("schemas.", "membridge.snapshot."))]
    kinds = [*shared, *get_args(Event)]
    return {kind.__name__: kind for kind in sorted(kinds, key=lambda kind: kind.__name__)}


def path_of(name: str, release: str = membridge.__version__) -> Path:
    """Return where the golden body of one type and release is."""
    return FOLDER / f"{name}-{release}.json"


def example(kind: type[msgspec.Struct]) -> bytes:
    """Return a body of type `kind` with every field given, the same at each call."""
    value = msgspec.convert(_sample(inspect.type_info(kind)), kind)
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _subclasses(kind: type[Wire]) -> list[type[Wire]]:
    direct = kind.__subclasses__()
    return [*direct, *(deeper for one in direct for deeper in _subclasses(one))]


def _struct(info: Any) -> dict[str, Any]:
    tag = {info.tag_field: info.tag} if info.tag_field else {}
    return tag | {field.encode_name: _sample(field.type) for field in info.fields}


SAMPLES: dict[type, Callable[[Any], Any]] = {
    inspect.StructType: _struct,
    inspect.StrType: lambda info: TEXTS[(info.pattern or "").removesuffix("$").removesuffix(r"\Z")],
    inspect.IntType: lambda info: max(7, int(info.ge or 0)),
    inspect.FloatType: lambda _: 1.5,
    inspect.BoolType: lambda _: True,
    inspect.BytesType: lambda _: "aGVsbG8=",
    inspect.EnumType: lambda info: list(info.cls)[-1].value,
    inspect.ListType: lambda info: [_sample(info.item_type)],
    inspect.DictType: lambda info: {_key(info.key_type): _sample(info.value_type)},
    inspect.UnionType: lambda info: _sample(next(t for t in info.types if not isinstance(t, inspect.NoneType))),
}


def _key(kind: inspect.Type) -> object:
    patterned = isinstance(kind, inspect.StrType) and kind.pattern
    return _sample(kind) if patterned else "observations"


def _sample(info: inspect.Type) -> Any:
    while isinstance(info, inspect.Metadata):
        info = info.type
    return SAMPLES[type(info)](info)


def main() -> None:
    """Write the golden files of the current release."""
    for name, kind in wire_types().items():
        path_of(name).write_bytes(example(kind))
    sys.stdout.write(f"{len(wire_types())} golden files of {membridge.__version__} in {FOLDER.name}/\n")


if __name__ == "__main__":
    main()
