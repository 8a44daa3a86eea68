"""What every test gets: real servers from `tests.fixtures`, and checks of what it leaves behind."""

import asyncio
import logging
import signal
import tomllib
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
from hypothesis import settings

from membridge.settings.services import SERVICES
from membridge.system.entry_points import entry_points
from membridge.testing.node_process import NodeProcess
from tests.fixtures import complaints, transfers
from tests.fixtures.commands import Commands

# The same examples on every run, and no example is failed by a busy machine; `just soak` and `just sweep` roll dice.
settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")

# An installation that is older than pyproject.toml knows other services than this checkout.
DECLARED = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
if not DECLARED[SERVICES].items() <= entry_points(SERVICES).items():
    pytest.exit("the installation is older than pyproject.toml: run `pip install --no-deps --no-build-isolation -e .`")

# What runs the tests may ignore hang-ups, as nohup does, and every process of a test would inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

pytest_plugins = [
    "tests.fixtures.nats",
    "tests.fixtures.seaweed",
    "tests.fixtures.databases",
    "tests.fixtures.lanes",
    "tests.fixtures.machines",
    "tests.fixtures.tasks",
    "tests.fixtures.heard",
    "tests.fixtures.locks",
    "tests.fixtures.copy_on_write",
]


@pytest.fixture(autouse=True)
async def no_orphan_tasks() -> AsyncGenerator[None]:
    """Fail the test that leaves a task behind."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, [task.get_name() for task in left if task]


class _Complaints(logging.Handler):
    """Keeps what asyncio complains of in this process."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


@pytest.fixture(scope="session", autouse=True)
def forked_commands(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Fork the commands of this session's machines, and fail who calls one in which asyncio complained."""
    commands = Commands(tmp_path_factory.mktemp("commands"))

    async def checked(self: NodeProcess, *arguments: str) -> tuple[int, str]:
        code, output = await commands.run(self, *arguments)
        complaints.check(output, f"membridge {' '.join(arguments)}")
        return code, output

    async def written(self: NodeProcess, count: int, label: str) -> None:
        await commands.write(self, count, label)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NodeProcess, "command", checked)
        patch.setattr(NodeProcess, "write", written)
        yield
    commands.stop()


@pytest.fixture(scope="session", autouse=True)
def ended_transfers() -> Generator[None]:
    """End what forks transfer processes for the stores of this session."""
    yield
    transfers.here.stop()


@pytest.fixture(autouse=True)
def no_complaints(request: pytest.FixtureRequest) -> Generator[None]:
    """Fail the test in which asyncio complained, in this process or in a daemon's log."""
    heard, asyncio_log = _Complaints(), logging.getLogger("asyncio")
    asyncio_log.addHandler(heard)
    # Asked for first and so torn down last: the daemons that write there have ended by then.
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    asyncio_log.removeHandler(heard)
    complaints.check("\n".join(heard.said), "this process")
    if folder is not None and folder.is_dir():
        complaints.check_logs(folder)
