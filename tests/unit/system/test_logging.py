"""What reaches the log, and what never does."""

import io
import json
import logging as stdlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membridge.system import logging

log = logging.get_logger("tests")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = stdlib.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()
    yield
    logging.setup()
    root.handlers[:] = handlers
    root.setLevel(level)
    stdlib.getLogger("membridge").setLevel(stdlib.NOTSET)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().split("\n")[:-1]]


def test_what_asyncio_warns_of_at_each_end_of_tls_is_no_line() -> None:
    stream = json_log()
    aio = stdlib.getLogger("asyncio")
    aio.warning("returning true from eof_received() has no effect when using ssl")
    aio.error("SSL handshake failed")
    assert [line["event"] for line in lines(stream)] == ["SSL handshake failed"]


def json_log(*, level: str = "info", secrets: tuple[str, ...] = ()) -> io.StringIO:
    stream = io.StringIO()
    logging.setup(form="json", level=level, secrets=secrets, stream=stream)
    return stream


def fail(message: str) -> None:
    raise RuntimeError(message)


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError


def test_a_line_is_one_json_object() -> None:
    stream = json_log()

    log.info("snapshot committed\nwith a line break", seq=3, path=Path("/a b"))

    (line,) = lines(stream)
    assert list(line)[:3] == ["ts", "level", "event"]
    assert str(line["ts"]).endswith("Z")
    assert line["level"] == "info"
    assert line["event"] == "snapshot committed\nwith a line break"
    assert (line["module"], line["seq"], line["path"]) == ("tests", 3, "/a b")


def test_lines_below_the_level_are_not_written() -> None:
    stream = json_log(level="warning")

    log.debug("small")
    log.info("small")
    log.error("large")

    assert [line["event"] for line in lines(stream)] == ["large"]


def test_a_request_id_is_on_every_line_of_its_request() -> None:
    stream = json_log()

    with logging.bound(request_id="r1"):
        log.info("first")
    log.info("second")

    assert [line.get("request_id") for line in lines(stream)] == ["r1", None]


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_secret_is_never_written_wherever_it_stands(form: str) -> None:
    stream = io.StringIO()
    logging.setup(form=form, secrets=("hunter2", 'with "quotes"\\', "xy"), stream=stream)

    log.info("cannot log in with hunter2", detail='saw with "quotes"\\ there', error=ValueError("hunter2"))
    log.info("nested", detail={"a": ["hunter2"], "token": "unknown-secret"}, password="unknown-secret", reason="xy")
    log.info("address", url="nats://user:unknown-secret@host:4222")
    try:
        fail("hunter2")
    except RuntimeError:
        log.exception("failed")
    stdlib.getLogger("foreign").error("it is %s", "hunter2")

    text = stream.getvalue()
    assert "hunter2" not in text
    assert "quotes" not in text
    assert "unknown-secret" not in text
    assert "xy" not in text
    assert text.count("***") >= 9


@given(
    st.dictionaries(st.text(), st.recursive(st.none() | st.text() | st.binary() | st.floats(), st.lists), max_size=4)
)
def test_any_value_can_be_logged(fields: dict[str, object]) -> None:
    stream = json_log(secrets=("hunter2",))

    log.info("anything", detail=fields)

    assert len(lines(stream)) == 1


def test_a_value_that_cannot_be_printed_does_not_lose_the_line() -> None:
    stream = json_log()

    log.info("strange", detail=Unprintable())

    assert lines(stream)[0]["detail"] == "<Unprintable>"


def test_an_exception_brings_its_traceback() -> None:
    stream = json_log()

    try:
        fail("here")
    except RuntimeError as error:
        log.exception("failed")
        log.error("failed", exc_info=error)  # noqa: TRY400 - the other spelling is what this tests

    for line in lines(stream):
        assert line["level"] == "error"
        assert "test_an_exception_brings_its_traceback" in str(line["exception"])


def test_what_other_libraries_log_comes_out_the_same_way() -> None:
    stream = json_log()

    stdlib.getLogger("foreign").warning("disk %s", "full")
    stdlib.getLogger("foreign").info("chatter")

    (line,) = lines(stream)
    assert (line["level"], line["event"], line["module"]) == ("warning", "disk full", "foreign")


def test_a_broken_format_string_of_a_library_harms_nobody() -> None:
    stream = json_log()
    stdlib.getLogger().handlers[:-1] = []  # pytest's own handlers raise for it

    stdlib.getLogger("foreign").error("broken %d", "format")

    assert lines(stream) == []


def test_our_modules_may_log_by_the_standard_library() -> None:
    stream = json_log()

    stdlib.getLogger("membridge.node.x").info("pulled", extra={"seq": 3, "event": "not this"})

    (line,) = lines(stream)
    assert (line["level"], line["event"], line["module"], line["seq"]) == ("info", "pulled", "membridge.node.x", 3)


def test_setting_up_twice_writes_each_line_once() -> None:
    json_log()
    stream = json_log()

    stdlib.getLogger("foreign").warning("once")

    assert len(lines(stream)) == 1


def test_a_stream_that_is_gone_harms_nobody() -> None:
    stream = json_log()
    stream.close()

    log.error("nobody hears this")


def test_text_for_people_is_one_line_and_a_traceback() -> None:
    stream = io.StringIO()
    logging.setup(form="text", stream=stream)

    log.warning("two\nlines", seq=7)

    (line,) = stream.getvalue().splitlines()
    assert line.endswith("warning two lines  seq=7")


def test_auto_is_json_where_nobody_reads() -> None:
    stream = io.StringIO()
    logging.setup(form="auto", stream=stream)

    log.info("hello")

    assert lines(stream)[0]["event"] == "hello"


def test_importing_it_loads_no_rich_and_costs_little_memory() -> None:
    code = (
        "import asyncio, logging, msgspec, sys\n"
        "def kib():\n"
        "    return int(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1])\n"
        "before = kib()\n"
        "import membridge.system.logging\n"
        "print(kib() - before, 'rich' in sys.modules)\n"
        "import rich\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)

    kib, loaded = done.stdout.split()
    assert loaded == "False"
    assert int(kib) < 3 * 1024
