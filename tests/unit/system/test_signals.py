"""Signals ask a daemon to stop; a hang-up only where it is not to be outlived."""

import asyncio
import os
import signal

import pytest

from membridge.system.signals import signals_set

PATIENCE = 10.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_asks_to_stop_and_afterwards_means_what_it_did(number: signal.Signals) -> None:
    before, stopping = signal.getsignal(number), asyncio.Event()
    with signals_set(stopping):
        os.kill(os.getpid(), number)
        async with asyncio.timeout(PATIENCE):
            await stopping.wait()
        if number is signal.SIGHUP:
            # By the kernel and by the shell: the second one must not end the process in the middle of its stop.
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) in {before, signal.SIG_DFL, signal.default_int_handler}


async def test_under_nohup_a_hang_up_is_outlived() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stopping = asyncio.Event()
        with signals_set(stopping):
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                await stopping.wait()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
