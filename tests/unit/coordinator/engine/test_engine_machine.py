"""The engine over a model of its database and of its workers, in every order that hypothesis can think of."""

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fixtures.task_engine.model import Model
from tests.fixtures.task_engine.rules import TaskMachine

CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
EXAMPLES, STEPS = 120, 40


class Modelled(TaskMachine):
    """Everything but the engine is a model."""

    driver_of = staticmethod(lambda serial: Model(serial=serial))


def test_every_order_of_events_keeps_the_promises() -> None:
    run_state_machine_as_test(
        Modelled,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=CHECKS,
            database=None,
            derandomize=True,
        ),
    )
