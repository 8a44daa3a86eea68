"""The rules of the engine's state machine against the real thing on both databases."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fixtures.task_engine.rules import TaskMachine
from tests.fixtures.tasks import create_database
from tests.integration.coordinator.hosted import Hosted

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
EXAMPLES, STEPS = 10, 25


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_order_of_events_keeps_the_promises(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    def new_database() -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/{secrets.token_hex(6)}.db"
        return create_database(request.getfixturevalue("postgres"))

    hosted: Callable[[bool], Hosted] = lambda serial: Hosted(new_database(), serial=serial)  # noqa: E731
    machine = type("OnOneDatabase", (TaskMachine,), {"driver_of": staticmethod(hosted)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=CHECKS,
            database=None, derandomize=True,
        ),
    )  # fmt: skip
