"""The gateway against its own document: no 5xx, no undocumented status, and no request accepted that should not be."""

import asyncio
import sys
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from schemas.web import Role
from services.web.limits import RateLimit
from tests.fixtures.gateway import SOON, gateway_of
from tests.fixtures.machines import MakeMachine
from tests.fixtures.pace import pause
from tests.fixtures.tasks import place_of

CONFIG = Path(__file__).parents[2] / "fixtures" / "schemathesis.toml"
#: Seconds of a run. Streams do not end, so the event stream is left out; it has tests of its own.
BUDGET = "45"
#: Has requests passed on to a server that there is not, and their answers would be 503: it comes last, by itself.
PASSED_ON, AFTER = "POST /api/runtime/config", "15"


@pytest.mark.slow
async def test_what_its_document_says_is_what_it_does(
    bus: Bus, nats_url: str, tmp_path: Path, make_machine: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RateLimit, "check", lambda *_: None)
    monkeypatch.setattr(RateLimit, "take", lambda *_: None)
    node = make_machine("a", memory=True)
    await node.start()
    environment = {"RUNTIME_API_KEY": "r" * 24}
    async with (
        place_of(bus, nats_url, f"sqlite:///{tmp_path}/tasks.db", tmp_path / "coordinator") as place,
        gateway_of(bus, nats_url, node.home, **environment) as gateway,
    ):
        await place.coordinator()
        key = await gateway.key(Role.ADMIN, "*")
        header = f"Authorization: Bearer {key}"
        async with asyncio.timeout(SOON):
            while not (await gateway.get("/api/membridge/projects", key=key))["projects"]:
                await pause()
        for seconds, operations in ((BUDGET, ("--exclude-name", PASSED_ON)), (AFTER, ("--include-name", PASSED_ON))):
            process = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG), "run",
                f"http://127.0.0.1:{gateway.where.port}/openapi.json", "--header", header, "--generation-deterministic",
                "--no-color", *operations, "--exclude-path", "/api/events", "--continue-on-failure",
                "--max-examples", "10", "--max-time", seconds, "--request-timeout", "60", "--warnings", "off",
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=tmp_path,
            )  # fmt: skip
            told, _ = await process.communicate()
            assert process.returncode == 0, told.decode()[-12_000:]
            assert "Tested:" in told.decode()
