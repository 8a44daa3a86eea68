"""Membridge: one claude-mem memory on several machines.

The node daemon, what it stands on, and its commands. Never imports `services`: they stand on it.
"""

from membridge.system.imports import load_without, on_first_use

__version__ = "0.1.0"

# The standard library imports them for calls that are seldom made; 0.6 MB.
on_first_use(["ipaddress", "locale", "textwrap", "tokenize"])
# It takes from there what Python 3.11 has itself; half a MiB.
load_without("msgspec", ["typing_extensions"])
# It imports the compressors of archives that nobody makes here.
load_without("shutil", ["bz2", "lzma", "zlib"])
