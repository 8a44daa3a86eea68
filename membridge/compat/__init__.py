"""What callers of the old tool imported, with the same names, results and exit codes.

It calls commands and rephrases their replies. Never decides anything and never opens a connection itself.
"""

from membridge.compat.sync_wrapper import SyncResult, doctor_project, pull_project, push_project

__all__ = ["SyncResult", "doctor_project", "pull_project", "push_project"]
