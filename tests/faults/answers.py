"""The fault `answer`: the answer to one write over NATS or S3 is lost, the write itself is not.

Runs an operation in this process, through relays, where the other faults fork: nothing dies here but an answer. A step
is a write: a publish into a stream, a KV entry, a piece of an object, a purge, a PUT.
"""

from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from membridge.bus import connection, jetstream
from membridge.errors import MembridgeError
from schemas.identity import ProjectId
from tests.faults.scenarios import BY_NAME, Stage
from tests.faults.shim import Mode, Step
from tests.faults.world import Place, World, opened, soon
from tests.faults.zygote import Trial, TrialResult
from tests.fixtures.relay import Losses, relayed

#: Seconds after which an answer is given up while this fault is swept; the product waits ten.
ANSWER = 2.0


class Lossy:
    """Runs tries as `tests.faults.sweep.Zygote` does, in this process and through relays."""

    def __init__(self, world: World, losses: Losses) -> None:
        self._world, self._losses = world, losses

    async def run(self, trial: Trial) -> TrialResult:
        """Run one try to its end."""
        scenario = BY_NAME[trial.scenario]
        target = trial.target if trial.mode == Mode.ANSWER else 0
        self._losses.disarm()
        self._losses.lost.clear()
        stage = Stage(
            self._world,
            Path(trial.folder),
            ProjectId(trial.project),
            scenario.terms,
            lambda: self._losses.arm(target),
        )
        result = TrialResult("done", 0)
        try:
            with _impatient():
                await scenario.act(stage)
        except MembridgeError as error:
            result = TrialResult("failed", 0, error=type(error).__name__, text=str(error))
        except Exception as error:  # noqa: BLE001 - what is no error of ours is a finding
            result = TrialResult("failed", 0, error="crash", text=repr(error))
        finally:
            self._losses.disarm()
            self._world.close_journals()
        counts = {"steps": len(self._losses.writes), "failed": int(self._losses.lost.is_set())}
        return TrialResult(result.ended, error=result.error, text=result.text, **counts)

    def steps(self) -> list[Step]:
        """Return the writes of the last try."""
        return [
            Step(number, pid=0, call="write", needs_room=False, path=what)
            for number, what in enumerate(self._losses.writes, 1)
        ]


@contextmanager
def _impatient() -> Generator[None]:
    """Give up answers soon during the body: this process' other tries, if it has any, do it too."""
    with ExitStack() as stack:
        for module in (connection, jetstream):
            stack.enter_context(patch.object(module, "ANSWER", ANSWER))
        yield


@asynccontextmanager
async def lossy(place: Place) -> AsyncGenerator[Lossy]:
    """Connect to the servers through relays."""
    losses = Losses()
    async with AsyncExitStack() as stack:
        nats_url = await stack.enter_async_context(relayed(place.nats_url, losses))
        s3 = place.s3
        if s3 is not None:
            s3 = replace(s3, endpoint=await stack.enter_async_context(relayed(s3.endpoint, losses)))
        world = await stack.enter_async_context(opened(Place(nats_url, s3)))
        # Its probe writes once for each process: no step of an operation.
        await world.store.describe(deadline=soon())
        yield Lossy(world, losses)
