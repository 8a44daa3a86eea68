"""The signals that stop a process, as an event of its loop."""

import asyncio
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def signals_set(stopping: asyncio.Event) -> Generator[None]:
    """Have SIGTERM, SIGINT and SIGHUP set `stopping` during the body; a second SIGTERM or SIGINT ends the process.

    A closed terminal sends SIGHUP, often twice: from the kernel and from the shell. Under `nohup` it stays ignored.
    """
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def stop(number: signal.Signals) -> None:
        if number is signal.SIGHUP:
            _leave(terminals)
        else:
            loop.remove_signal_handler(number)
        stopping.set()

    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _leave(terminals: list[int]) -> None:
    """Discard further output: a write to a closed terminal fails, at the latest when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in terminals:
        os.dup2(nowhere, number)
    os.close(nowhere)
