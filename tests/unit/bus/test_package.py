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


def test_the_bus_loads_no_jetstream_client_and_no_parser_of_emails() -> None:
    loaded = "[name for name in ('nats.js.api', 'nats.js.client', 'email.parser') if name in sys.modules]"
    assert run(f"import sys, membridge.node.main; print({loaded})") == "[]"


def test_the_names_of_headers_are_those_of_the_client_library() -> None:
    code = """\
import re, membridge.bus, nats.aio.client
from pathlib import Path
used = set(re.findall(r"nats\\.js\\.api\\.Header\\.(\\w+)", Path(nats.aio.client.__file__).read_text("utf-8")))
ours = {name: getattr(nats.js.api.Header, name) for name in sorted({*used, "MSG_ID"})}
from nats.js.api import Header
print(len(used) > 2, all(value == Header[name] == Header[name].value for name, value in ours.items()))"""
    assert run(code) == "True True"


def test_a_process_may_use_the_jetstream_client_after_the_bus() -> None:
    code = """\
import membridge.bus, nats
made = nats.aio.client.Client().jetstream()
from nats.js import JetStreamContext
import nats.js.kv
print(isinstance(made, JetStreamContext), nats.js.kv.KeyValue.__name__)"""
    assert run(code) == "True KeyValue"
    assert run("import membridge.bus, nats.js.kv, nats.js.client as c; print(c.JetStreamContext.__name__)") == (
        "JetStreamContext"
    )
