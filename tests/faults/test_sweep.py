"""A sample of the sweep on every run: each operation killed, and starved of room, at a few of its I/O steps.

`just sweep` takes all steps; docs/faults.md says what was found.
"""

from collections.abc import Generator
from functools import partial
from pathlib import Path

import pytest

from membridge.embedded.nats_server import NatsServer, start_nats
from tests.faults import shim
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.shim import Mode
from tests.faults.sweep import faults_of, sample_of, sweep
from tests.faults.world import Place

#: Steps of each operation that are tried: killed at, with a full disk from there on, and with one call that fails.
SAMPLE = {Mode.KILL: 2, Mode.FULL: 1, Mode.BROKEN: 1}
#: Which steps those are.
SEED = 20261128


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled shim."""
    return shim.build(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def shared_nats(tmp_path_factory: pytest.TempPathFactory) -> Generator[NatsServer]:
    """A nats-server for all sweeps: each try has a project of its own."""
    with start_nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(params=["jetstream", "s3"])
def place(request: pytest.FixtureRequest, shared_nats: NatsServer) -> Place:
    """The servers, with each kind of store."""
    options = request.getfixturevalue("s3_options") if request.param == "s3" else None
    return Place(shared_nats.url, options)


@pytest.mark.parametrize(
    "scenario", [one for one in SCENARIOS if not one.only_answers], ids=lambda scenario: scenario.name.replace(" ", "-")
)
async def test_nothing_is_lost_whatever_stops_an_operation(
    scenario: Scenario, place: Place, shim_library: Path, tmp_path: Path
) -> None:
    plan = {
        mode: partial(sample_of, mode=mode, count=SAMPLE[mode], seed=SEED)
        for mode in faults_of(scenario)
        if mode in SAMPLE
    }
    for report in await sweep(place, tmp_path, shim_library, scenario, plan):
        assert report.failures == []
        assert report.hit >= report.tries - 1, report
        assert report.steps >= 3
