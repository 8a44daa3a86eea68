"""The old tool's module under its old name: `python -m sqlite_minio_sync push_sqlite`, or imported."""

import sys

from membridge.compat.sqlite_minio_sync import (
    doctor,
    leadership_info,
    main,
    print_project,
    pull_sqlite,
    push_sqlite,
)

__all__ = ["doctor", "leadership_info", "print_project", "pull_sqlite", "push_sqlite"]

if __name__ == "__main__":
    sys.exit(main())
