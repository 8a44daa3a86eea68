"""One nats-py client: opened with a reason when it fails, told about every change, closed within its time.

It reconnects by itself. It ends for good when the server closes it with an error; who holds it makes a new one.
Its callbacks only note what happened: work belongs to the tasks that wait for the note.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client, Server
from nats.errors import Error

from membridge.aio.backoff import pause_after
from membridge.aio.deadline import Deadline
from membridge.bus import errors
from membridge.bus.options import OLDEST_SERVER, BusOptions
from membridge.errors import BusUnavailableError, CredentialsError, MembridgeError, RevokedError
from membridge.system.logging import get_logger

#: Seconds a first connection may take before it has to say why it failed.
FIRST_CONNECTION = 4.8
#: Seconds given to what was published last to reach the server, and to the socket to close.
LAST_WORDS = 2.0

log = get_logger("membridge.bus")


#: First connections per server that may be reset before that is the answer.
RESET_TRIES = 4


class _FirstFailureError(Exception):
    """Ends nats-py's own endless first connection; `cause` is what went wrong."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(slots=True)
class Callbacks:
    """What a link tells its holder. Each is called on the event loop and must not wait for anything."""

    up: Callable[[], Awaitable[None]]
    down: Callable[[], None]
    closed: Callable[[], None]
    #: Is given the subject of a message that the server did not let through.
    refused: Callable[[str], None]


class NatsClient:
    """A client and what it noted."""

    def __init__(self, options: BusOptions, callbacks: Callbacks) -> None:
        self.client = Client()
        self.last_error: Exception | None = None
        #: How often a connection was tried: a connection that is down and tries no more is stuck.
        self.tries = 0
        #: Done once the connection that there is, or was last, is broken.
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._options = options
        self._callbacks = callbacks
        self._opening = True
        self._failures = 0

    async def open(self, *, deadline: Deadline) -> None:
        """Connect; raise BusUnavailableError or CredentialsError with the reason within five seconds."""
        where = self._options.where()
        deadline = deadline.sooner(FIRST_CONNECTION)
        try:
            async with asyncio.timeout(deadline.remaining()):
                await self._connect()
        except _FirstFailureError as error:
            await self.close()
            raise _told(error.cause, where, self._options) from error.cause
        except TimeoutError as error:
            await self.close()
            raise _told(self.last_error or error, where, self._options) from error
        except (Error, OSError, ValueError) as error:
            await self.close()
            raise _told(error, where, self._options) from error
        except BaseException:
            await self.close()
            raise
        self._opening = False

    async def check(self, *, deadline: Deadline) -> None:
        """Raise BusUnavailableError when the server is too old or has no JetStream for us."""
        where = self._options.where()
        if self.version < OLDEST_SERVER:
            oldest = ".".join(map(str, OLDEST_SERVER))
            raise BusUnavailableError(
                f"NATS at {where} is version {self.version_text}, the oldest supported is {oldest}",
                remedy=f"upgrade nats-server to {oldest} or newer, or use `membridge up`",
            )
        if self._options.domain is None and not self._server_info().get("jetstream"):
            raise errors.no_jetstream(f"NATS at {where}")
        deadline.check("connecting to NATS")

    @property
    def connected(self) -> bool:
        """Whether the client believes that the server hears it."""
        return self.client.is_connected

    @property
    def version_text(self) -> str:
        """The server's version as it gives it."""
        version = self._server_info().get("version")
        return version if isinstance(version, str) else "0.0.0"

    @property
    def version(self) -> tuple[int, int, int]:
        """The server's version, a pre-release counted as its release."""
        numbers = self.version_text.partition("-")[0].partition("+")[0].split(".")
        try:
            major, minor, patch = (int(number) for number in numbers)
        except ValueError:
            return (0, 0, 0)
        return (major, minor, patch)

    async def close(self) -> None:
        """Close within four seconds, whatever state the connection is in. Nothing is drained: that can hang."""
        self._callbacks = Callbacks(_ignore_up, _ignore, _ignore, lambda _: None)
        # What fails from here on is no reason why the connection could not be made.
        self._opening = False
        try:
            async with asyncio.timeout(LAST_WORDS):
                if self.client.is_connected:
                    await self.client.flush(timeout=2)
        except (Error, OSError, TimeoutError, asyncio.InvalidStateError):
            log.debug("bus closed without its last words")
        try:
            async with asyncio.timeout(LAST_WORDS):
                await self.client.close()
                # The library's own tasks were cancelled; they end in the next rounds of the loop.
                for _ in range(3):
                    await asyncio.sleep(0)
        except (Error, OSError, TimeoutError, AssertionError):
            log.debug("bus connection did not close cleanly")

    async def _connect(self) -> None:
        options = self._options
        pace = options.pace
        extra: dict[str, Any] = {}
        if options.credentials is not None or options.nkey_seed is not None:
            from membridge.bus.sign_in import SignIn  # noqa: PLC0415 - only where a key is used

            sign_in = SignIn(credentials=options.credentials, seed=options.nkey_seed)
            sign_in.apply(self.client)
            extra.update(sign_in.callbacks())
        if (tls := options.tls()) is not None:
            extra["tls"] = tls
        # The stubs say int where any number of seconds will do.
        await self.client.connect(
            list(options.urls),
            name=options.name,
            error_cb=self._on_error,
            disconnected_cb=self._on_down,
            reconnected_cb=self._on_up,
            closed_cb=self._on_closed,
            reconnect_to_server_handler=self._next_server,
            max_reconnect_attempts=-1,
            connect_timeout=pace.connect,  # pyright: ignore[reportArgumentType]
            ping_interval=pace.ping_every,  # pyright: ignore[reportArgumentType]
            max_outstanding_pings=2,
            # Nothing is kept while the connection is down: what was refused must not be delivered later.
            pending_size=0,
            inbox_prefix=options.inbox_prefix,
            **extra,
        )

    def _server_info(self) -> dict[str, Any]:
        return self.client._server_info  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the library shows no more than the version

    def _next_server(self, servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
        self.tries += 1
        server = random.choice(servers)  # noqa: S311 - to spread load, not to guard
        pace = self._options.pace
        return server, pause_after(server.reconnects + 1, first=pace.retry_first, most=pace.retry_most)

    async def _on_error(self, error: Exception) -> None:
        self.last_error = error
        self.tries += 1
        if not self._opening:
            log.debug("bus error", error=str(error) or type(error).__name__)
            if (subject := errors.refused_subject(error)) is not None:
                self._callbacks.refused(subject)
            elif errors.is_refusal(error) or isinstance(error, errors.KeyFileError):
                # The library would try again without end, and leave a socket open each time.
                self._callbacks.closed()
            return
        self._failures += 1
        # A server that refuses credentials closes at once, and the reset can overtake its reason: ask again for that.
        cut = isinstance(error, ConnectionResetError | BrokenPipeError)
        tries = len(self._options.urls) * (RESET_TRIES if cut else 1)
        if errors.is_refusal(error) or self._failures >= tries:
            raise _FirstFailureError(error)

    async def _on_up(self) -> None:
        self.broken = asyncio.get_running_loop().create_future()
        await self._callbacks.up()

    async def _on_down(self) -> None:
        if not self.broken.done():
            self.broken.set_result(None)
        self._callbacks.down()

    async def _on_closed(self) -> None:
        self._callbacks.closed()


def _told(error: BaseException, where: str, options: BusOptions) -> MembridgeError:
    if errors.is_refusal(error) and options.enrolled:
        return RevokedError(
            f"NATS at {where} refused the credentials of this machine: it was revoked, or the server was set up anew"
        )
    if errors.is_refusal(error):
        return CredentialsError(f"NATS at {where} refused the credentials", remedy=errors.CREDENTIALS)
    if isinstance(error, ConnectionRefusedError):
        return BusUnavailableError(f"nothing listens at {where}")
    if isinstance(error, TimeoutError):
        return BusUnavailableError(f"NATS at {where} does not answer")
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error).removeprefix("nats: ")
    return BusUnavailableError(f"NATS at {where} cannot be reached: {reason or type(error).__name__}")


def _ignore() -> None:
    return


async def _ignore_up() -> None:
    return
