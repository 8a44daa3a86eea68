"""Ask the task runtime for one thing. The bus is loaded when something is asked, so that `--help` is quick."""

from typing import TypeVar

from membridge.cli.command import Invocation
from schemas.subjects import Operation
from schemas.wire import Wire

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)


def ask(invocation: Invocation, operation: Operation[Q, R], request: Q) -> R:
    """Return a coordinator's reply. Raises NoResponderError when none runs."""
    import asyncio  # noqa: PLC0415 - as above

    from membridge.cli.asking import of_runtime, runtime_bus  # noqa: PLC0415 - as above

    async def asked() -> R:
        async with runtime_bus(invocation) as bus:
            return await of_runtime(bus, operation, request)

    return asyncio.run(asked())
