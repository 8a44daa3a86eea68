"""Child processes that end with their parent, even after SIGKILL or for lack of memory, when it cannot end them.

Only Linux can do that. Elsewhere they are ordinary children, and the parent's next start looks for them.
"""

import os
import sys
from collections.abc import Sequence

#: Asks the kernel for SIGTERM at the parent's end, which may have come already, then becomes the program. A Python
#: without ctypes starts the program anyway.
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

    Start the child from a thread that lives as long as the process: the kernel watches that thread. The child becomes
    the program after about 20 ms, with the same process id.
    """
    # An upgrade may have removed the Python of this process.
    if sys.platform != "linux" or not os.access(sys.executable, os.X_OK):
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), *command]
