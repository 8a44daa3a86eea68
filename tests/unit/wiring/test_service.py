"""What a service declares, how it is found, and how `up` keeps it running."""

import asyncio
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from membridge.access import runtime_permissions
from membridge.aio.lifecycle import Ready
from membridge.embedded.nats_server import bundled_config
from membridge.errors import SettingsError, UnavailableError
from membridge.settings import Settings, load, services
from membridge.settings.kinds import FLAG
from membridge.settings.services import discover
from membridge.settings.table import setting
from membridge.wiring.service import Service, installed, supervised
from schemas import buckets, streams
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
    return {service.name for service in installed()}, "\n".join(discover().warnings)


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
    owned = [kept for service in installed() for kept in (*service.streams, *service.buckets)]
    declared = sum(kept.max_bytes for kept in (*streams.ALL, *buckets.ALL, *owned))

    assert most is not None
    # Snapshots and outputs of tasks need the most of it.
    assert declared < int(most[1]) * 10**9 / 10
