"""`python -m membridge.validate_install`: `membridge validate` for scripts that have an interpreter and no PATH."""

import sys

from membridge.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["validate", *sys.argv[1:]]))
