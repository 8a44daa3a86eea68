"""Child processes that end with their parent, however it ends: SIGKILL and a short memory give it no time to end them.

Linux alone can do that. Elsewhere a child is an ordinary one, and its parent's next life looks for it.
"""

import os
import sys
from collections.abc import Sequence

#: Asks the kernel for SIGTERM when the parent ends, then becomes the program. The parent may have ended before.
#: A Python without ctypes starts the program anyway.
_TIE = """\
import os, sys
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, 15)
except (ImportError, OSError, AttributeError):
    pass
if os.getppid() != int(sys.argv[1]):
    sys.exit(143)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]} cannot be run: {error.strerror}")
"""


def tied(command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` as a child which gets SIGTERM when this process ends.

    The child is to be started from a thread that lives as long as the process: the kernel watches that thread. It
    keeps its process id while it becomes the program, about 20 ms later.
    """
    # An upgrade may have taken away the Python that this process runs on.
    if sys.platform != "linux" or not os.access(sys.executable, os.X_OK):
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), *command]
