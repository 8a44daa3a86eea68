"""What a service declares, how it is found, and how `up` keeps it running."""

import asyncio
import io
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from membridge.access import runtime_permissions
from membridge.aio.lifecycle import Ready
from membridge.aio.tasks import background
from membridge.embedded.nats_server import bundled_config
from membridge.errors import SettingsError, UnavailableError
from membridge.settings import Settings, load, services
from membridge.settings.kinds import FLAG
from membridge.settings.services import discover
from membridge.settings.table import setting
from membridge.system import logging
from membridge.wiring import service
from membridge.wiring.service import Service, WebOptions, installed, supervised
from schemas import buckets, streams
from schemas.claude_config import CLAUDE_CONFIG
from services.coordinator.service import SERVICE


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherSettings:
    """Another service."""

    enabled: bool = setting(FLAG, default=False, env="MEMBRIDGE_OTHER", meaning="Runs.")


OTHER = replace(SERVICE, name="other", settings=OtherSettings)
UNNAMED = replace(OTHER, name="No Name")
TAKEN = replace(OTHER, name="node")
SLIP = replace(SERVICE, name="slip")


def found(monkeypatch: pytest.MonkeyPatch, **targets: str) -> tuple[set[str], str]:
    here = {name: target if ":" in target else f"{__name__}:{target}" for name, target in targets.items()}
    monkeypatch.setattr(
        services, "entry_points", lambda _: {"coordinator": "services.coordinator.service:SERVICE", **here}
    )
    return {one.name for one in installed()}, "\n".join(discover().warnings)


def test_a_service_that_cannot_be_used_is_left_out_and_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names, warnings = found(
        monkeypatch, good="OTHER", gone="no.such:X", text="pathlib:Path", unnamed="UNNAMED", taken="TAKEN", slip="SLIP"
    )

    assert names == {"coordinator", "other"}
    assert re.findall(r"^service (\w+) is left out", warnings, re.MULTILINE) == [
        "gone",
        "slip",
        "taken",
        "text",
        "unnamed",
    ]
    assert "is already a setting" in warnings
    assert load({}, tmp_path).warnings == tuple(warnings.splitlines())


def test_its_group_is_read_as_any_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found(monkeypatch, good="OTHER")

    settings = load({"MEMBRIDGE_OTHER": "1"}, tmp_path)

    assert settings.of(OtherSettings).enabled
    with pytest.raises(SettingsError):
        load({"MEMBRIDGE_OTHER": "perhaps"}, tmp_path)


def test_settings_of_a_service_that_is_not_installed_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="OtherSettings"):
        load({}, tmp_path).of(OtherSettings)


async def test_a_failure_is_reported_and_tried_again_until_the_settings_are_wrong(tmp_path: Path) -> None:
    failures: list[Exception] = [UnavailableError("away"), ValueError("odd"), SettingsError("wrong")]
    ready = asyncio.Event()

    async def part(_settings: Settings, _ready: Ready) -> None:
        raise failures.pop(0)

    with pytest.raises(SettingsError, match="wrong"):
        async with asyncio.timeout(30.0):
            await supervised(replace(OTHER, part=part), load({}, tmp_path))(ready.set)
    assert (ready.is_set(), failures) == (True, [])


def test_a_service_reaches_its_own_streams_and_buckets_only() -> None:
    rights = runtime_permissions.service(
        Service(
            name="other", summary="", settings=OtherSettings, enabled=SERVICE.enabled, part=SERVICE.part,
            streams=(streams.EVENTS,), buckets=(buckets.HEADS,),
        )
    )  # fmt: skip

    assert [subject for subject in rights.publish if "$" in subject] == [
        "$KV.heads.>", "$JS.API.INFO", "$JS.API.STREAM.INFO.EVENTS", "$JS.API.STREAM.INFO.KV_heads",
        "$JS.API.DIRECT.GET.EVENTS", "$JS.API.DIRECT.GET.EVENTS.>", "$JS.API.DIRECT.GET.KV_heads",
        "$JS.API.DIRECT.GET.KV_heads.>",
    ]  # fmt: skip
    assert [subject for subject in rights.subscribe if not subject.startswith("$SRV")] == [
        "_INBOX.other.>",
        "$KV.heads.>",
    ]


async def test_the_parts_after_a_service_do_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PATIENCE", 0.01)
    ready, served, go = asyncio.Event(), asyncio.Event(), asyncio.Event()
    written = io.StringIO()
    monkeypatch.setattr(logging, "_lines", logging._Lines(written, "info", logging._Mask(()), logging._Json()))

    async def part(_settings: Settings, says_ready: Ready) -> None:
        await go.wait()
        says_ready()
        served.set()
        await asyncio.Event().wait()

    async with background() as group, asyncio.timeout(30.0):
        group.create_task(supervised(replace(OTHER, part=part), load({}, tmp_path))(ready.set))
        await ready.wait()
        assert '"event":"other not ready"' in written.getvalue()
        go.set()
        await served.wait()
    assert written.getvalue().count("\n") == 1


def test_a_service_that_answers_http_has_keys_sessions_and_an_audit(tmp_path: Path) -> None:
    web = replace(OTHER, web=lambda _: WebOptions(listen="127.0.0.1:8080"), overview=lambda _: "runs")
    rights, without = runtime_permissions.service(web), runtime_permissions.service(OTHER)

    assert set(web.all_streams) - set(OTHER.all_streams) == set(streams.WEB)
    assert set(web.all_buckets) - set(OTHER.all_buckets) == set(buckets.WEB)
    assert set(rights.subscribe) - set(without.subscribe) == {f"$KV.{bucket.name}.>" for bucket in buckets.WEB}
    assert "membridge.web.audit.entry.*" in set(rights.publish) - set(without.publish)
    assert web.described(load({}, tmp_path)) == "runs at http://127.0.0.1:8080"


def test_a_node_reads_the_declarations_and_loads_nothing_of_the_services() -> None:
    code = (
        "import sys, pathlib, membridge.node.main, membridge.settings as s; s.load({}, pathlib.Path('/none'));"
        "print(*sorted({'services.coordinator.service', 'services.coordinator.app', 'services.service', 'sqlalchemy',"
        "'alembic', 'importlib.metadata'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.split() == ["services.coordinator.service"]


def test_all_that_is_declared_fits_the_server() -> None:
    most = re.search(r"^\s*max_file_store: (\d+)GB$", bundled_config().read_text("utf-8"), re.MULTILINE)
    owned = [kept for one in installed() for kept in (*one.all_streams, *one.all_buckets)]
    declared = sum(kept.max_bytes for kept in (*streams.ALL, *buckets.ALL, CLAUDE_CONFIG, *owned))

    assert most is not None
    # Snapshots and outputs of tasks need the most of it.
    assert declared < int(most[1]) * 10**9 / 10
