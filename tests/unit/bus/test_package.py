"""What importing the bus costs and what it leaves alone."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_bus_loads_the_client_without_aiohttp() -> None:
    assert run("import sys, membridge.bus.connection; print('aiohttp' in sys.modules)") == "False"


def test_a_process_may_load_aiohttp_after_the_bus() -> None:
    assert run("import membridge.bus.connection, aiohttp; print(bool(aiohttp.ClientSession))") == "True"


def test_a_process_may_load_aiohttp_before_the_bus() -> None:
    assert run("import aiohttp, membridge.bus.connection, sys; print(sys.modules['aiohttp'] is aiohttp)") == "True"


def test_messages_are_loaded_without_what_python_has_itself_and_leave_it_to_others() -> None:
    assert run("import sys, membridge.node.main; print('typing_extensions' in sys.modules)") == "False"
    assert run("import membridge, typing_extensions; print(bool(typing_extensions.TypedDict))") == "True"
