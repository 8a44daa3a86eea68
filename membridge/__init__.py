"""Membridge: one claude-mem memory on several machines.

The node daemon, what it stands on, and its commands. Never imports `services`: they stand on it.
"""

from membridge.system.imports import load_without

__version__ = "0.1.0"

# It takes from there what Python 3.11 has itself; half a MiB.
load_without("msgspec", ["typing_extensions"])
