"""Two machines with a configuration folder each, on real stores of both kinds, plain and sealed."""

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import open_bucket
from membridge.claudeconfig import pull, push, three_sides
from membridge.claudeconfig.collect import Place
from membridge.claudeconfig.pull import Pulled
from membridge.claudeconfig.rules import Requested
from membridge.claudeconfig.shared_state import Shared
from membridge.claudeconfig.three_sides import Look, Wanted
from membridge.objectstore.encryption.keys import KeySource
from membridge.objectstore.encryption.store import EncryptedStore
from membridge.objectstore.protocol import ObjectStore
from schemas.claude_config import CLAUDE_CONFIG, ConfigHead
from schemas.identity import NodeId, canonical_id
from tests.fixtures.lanes import opened_store


def soon() -> Deadline:
    return Deadline.after(60.0)


@dataclass
class Machine:
    """A machine: its home, and its view of the stores."""

    place: Place
    shared: Shared
    wanted: Wanted = field(default_factory=Wanted)

    def write(self, path: str, text: str | bytes, *, mode: int = 0o644) -> Path:
        """Write a file below the configuration folder."""
        file = self.place.config / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        file.chmod(mode)
        return file

    def settings(self, value: dict[str, Any]) -> None:
        """Write settings.json."""
        self.write("settings.json", json.dumps(value, indent=2))

    def read_settings(self) -> dict[str, Any]:
        """Read settings.json."""
        found: dict[str, Any] = json.loads(self.text("settings.json"))
        return found

    def text(self, path: str) -> str:
        """Read a file below the configuration folder."""
        return (self.place.config / path).read_text(encoding="utf-8")

    def tree(self) -> dict[str, tuple[bytes, int]]:
        """Return every file below the configuration folder with its permissions, links as their target."""
        return {
            str(file.relative_to(self.place.config)): (
                (str(file.readlink()).encode(), 0) if file.is_symlink() else (file.read_bytes(), file.stat().st_mode)
            )
            for file in sorted(self.place.config.rglob("*"))
            if file.is_symlink() or file.is_file()
        }

    async def push(self, *, delete: bool = False, allow: str = "") -> ConfigHead | None:
        """Push; return the new head, None where nothing had to be sent."""
        wanted = Wanted(self.wanted.requested, frozenset({allow}) if allow else frozenset(), self.wanted.folders)
        return (await push.push(self.place, self.shared, wanted, delete=delete, deadline=soon()))[2]

    async def pull(self, *, delete: bool = False, programs: bool = True) -> Pulled:
        """Pull, with or without programs."""
        return await pull.pull(
            self.place, self.shared, self.wanted, delete=delete, consent=lambda *_: programs, deadline=soon()
        )

    async def look(self) -> Look:
        """Look at all three sides."""
        return await three_sides.look(self.place, self.shared, self.wanted, deadline=soon())


@dataclass
class Machines:
    """As many machines as a test wants, on one store."""

    root: Path
    store: ObjectStore
    bus: Bus

    async def make(self, name: str, requested: Requested | None = None) -> Machine:
        """Make a machine with an empty configuration folder."""
        home = self.root / name / "home"
        config = home / ".claude"
        config.mkdir(parents=True)
        heads = await open_bucket(self.bus, CLAUDE_CONFIG, replicas=1, deadline=soon())
        shared = Shared(self.store, heads, canonical_id("shared"), NodeId(name))
        place = Place(config=config, home=home, state=self.root / name / "state")
        return Machine(place, shared, Wanted(requested or Requested()))


@pytest.fixture(params=["jetstream", "s3 sealed"])
async def machines(request: pytest.FixtureRequest, bus: Bus, tmp_path: Path) -> AsyncGenerator[Machines]:
    """Machines on each kind of store: plain in NATS, and sealed on S3."""
    kind, _, sealed = str(request.param).partition(" ")
    options = request.getfixturevalue("s3_options") if kind == "s3" else None
    async with opened_store(kind, bus, options) as store:
        used = EncryptedStore(store, KeySource(passphrase="of the configuration")) if sealed else store
        yield Machines(tmp_path, used, bus)
