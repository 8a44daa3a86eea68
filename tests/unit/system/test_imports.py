"""Libraries are loaded without the parts that a daemon does not use, and those are still there for whoever asks."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_module_is_loaded_when_a_name_is_asked_of_it() -> None:
    code = """\
import sys, membridge
import locale
before = vars(locale).get("__file__")
found = locale.getencoding()
from locale import LC_ALL
print(before, found, vars(sys.modules["locale"])["__file__"] == locale.__file__)
"""
    assert run(code).split() == ["None", run("import locale; print(locale.getencoding())"), "True"]


def test_threads_that_ask_at_once_get_the_whole_module() -> None:
    code = """\
import sys, threading, membridge, ipaddress
sys.setswitchinterval(1e-6)
ready, found = threading.Barrier(8), []
def ask():
    ready.wait()
    found.append(str(ipaddress.ip_network("10.0.0.0/8")))
threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(found == ["10.0.0.0/8"] * 8)"""
    assert run(code) == "True"


def test_a_daemon_leaves_what_it_does_not_use() -> None:
    code = """\
import sys, membridge.node.main
later = ("ipaddress", "locale", "textwrap", "tokenize")
print([name for name in later if "__file__" in vars(sys.modules[name])])"""
    assert run(code) == "[]"
