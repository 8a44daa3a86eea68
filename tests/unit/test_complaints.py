"""A complaint of asyncio in what a program wrote fails the test."""

import subprocess
import sys

import pytest

from tests.fixtures import complaints

FORGETFUL = {
    "exception": "async def main():\n    asyncio.get_running_loop().create_task(fail())\n    await asyncio.sleep(0)",
    "coroutine": "async def main():\n    fail()",
}


@pytest.mark.parametrize("forgotten", FORGETFUL)
def test_what_asyncio_complains_of_is_found_in_the_output_of_a_program(forgotten: str) -> None:
    program = (
        f"import asyncio\nasync def fail():\n    raise OSError('lost')\n{FORGETFUL[forgotten]}\nasyncio.run(main())"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    with pytest.raises(AssertionError, match="a program complained"):
        complaints.check(ended.stderr, "a program")


def test_what_is_said_in_peace_is_no_complaint() -> None:
    complaints.check("error: nothing listens at 127.0.0.1:4222\n  remedy: start it", "a program")
