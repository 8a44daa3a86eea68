"""The demo's sample database: written by a real claude-mem worker, shipped with the package."""

from pathlib import Path

from membridge.errors import NotFoundError


def sample_database() -> Path:
    """Return the packaged sample; in a source checkout, that of the tests."""
    here = Path(__file__).resolve()
    for path in (here.with_name("sample.db"), here.parents[2] / "tests" / "data" / "claude-mem-13.25.3.db"):
        if path.is_file():
            return path
    raise NotFoundError("the sample database is not part of this installation", remedy="install Membridge again")
