"""How this software came onto a machine, by where it lies."""

from pathlib import Path

import pytest

from membridge.node.install_method import install_method


@pytest.mark.parametrize(
    ("prefix", "package", "method"),
    [
        ("/home/pi/.local/share/pipx/venvs/membridge", "{prefix}/lib/python3.11/site-packages/membridge", "pipx"),
        ("/home/pi/.local/share/uv/tools/membridge", "{prefix}/lib/python3.11/site-packages/membridge", "uv"),
        ("/opt/membridge", "{prefix}/lib/python3.11/site-packages/membridge", "pip"),
        ("/opt/membridge", "/home/pi/work/membridge", "source"),
        ("/home/pi/pipx-experiments", "{prefix}/lib/membridge", "pip"),
    ],
)
def test_it_is_told_by_the_folders(prefix: str, package: str, method: str) -> None:
    assert install_method(Path(prefix), Path(package.format(prefix=prefix))) == method
