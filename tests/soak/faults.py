"""The faults of a soak, drawn from one seed: each breaks something for a while and mends it again."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from membridge.testing.relay import State
from tests.soak.cast import Actor, Cast

#: Seconds that a fault lasts at least and at most; a lease of the soak is three seconds.
SHORTEST, LONGEST = 0.2, 8.0


Fault = Callable[[], Awaitable[str]]


@dataclass(slots=True)
class Troubles:
    """Draws faults until cancelled, and remembers what it did."""

    cast: Cast
    chance: random.Random
    done: list[str]

    async def run(self) -> None:
        """Break one thing after the other."""
        faults: list[tuple[int, Fault]] = [
            (4, self._power_cut),
            (3, self._suspend),
            (3, self._no_bus),
            (3, self._no_store),
            (2, self._slow),
            (1, self._server_dies),
            (2, self._select),
            (2, self._nothing),
        ]
        weights = [weight for weight, _ in faults]
        while True:
            (_, fault), *_ = self.chance.choices(faults, weights)
            self.done.append(await fault())

    async def mend(self) -> None:
        """Leave everything whole."""
        for actor in self.cast.actors:
            actor.signal(signal.SIGCONT)
            for line in (actor.nats, actor.store):
                if line is not None:
                    line.set(State.OPEN)
            process = actor.machine.process
            if process is None or process.returncode is not None:
                await actor.machine.start()

    async def _power_cut(self) -> str:
        actor = self._actor()
        await actor.machine.kill()
        await self._while()
        await actor.machine.start()
        return f"power cut at {actor.name}"

    async def _suspend(self) -> str:
        actor = self._actor()
        actor.signal(signal.SIGSTOP)
        await self._while()
        actor.signal(signal.SIGCONT)
        return f"{actor.name} suspended"

    async def _no_bus(self) -> str:
        actor, state = self._actor(), self.chance.choice((State.CUT, State.FROZEN))
        actor.nats.set(state)
        await self._while()
        actor.nats.set(State.OPEN)
        return f"{actor.name} without NATS, {state}"

    async def _no_store(self) -> str:
        actor, state = self._actor(), self.chance.choice((State.CUT, State.FROZEN))
        if actor.store is None:
            return await self._nothing()
        actor.store.set(state)
        await self._while()
        actor.store.set(State.OPEN)
        return f"{actor.name} without its store, {state}"

    async def _slow(self) -> str:
        actor = self._actor()
        lines = [line for line in (actor.nats, actor.store) if line is not None]
        for line in lines:
            line.set(State.SLOW)
        await self._while()
        for line in lines:
            line.set(State.OPEN)
        return f"{actor.name} on slow lines"

    async def _server_dies(self) -> str:
        running = self.cast.server.server
        if running is not None:
            os.kill(running.pid, signal.SIGKILL)
        await self._while()
        return "nats-server killed"

    async def _select(self) -> str:
        actor, other = self._actor(), self._actor()
        code, _ = await actor.machine.command("leader", "select", other.name)
        return f"{other.name} selected by {actor.name}: exit {code}"

    async def _nothing(self) -> str:
        await self._while()
        return "nothing for a while"

    def _actor(self) -> Actor:
        return self.chance.choice(self.cast.actors)

    async def _while(self) -> None:
        await asyncio.sleep(self.chance.uniform(SHORTEST, LONGEST))
