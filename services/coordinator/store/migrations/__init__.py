"""How the tables came to be, one module for each step. A step that was released is never changed."""

from pathlib import Path

from membridge.wiring.service import Migrations

#: Older than the other services' lines, so its table has Alembic's own name: databases in use have it.
MIGRATIONS = Migrations("coordinator", Path(__file__).parent, version_table="alembic_version")
