"""The session of each result: which worker knows a context, and by what session, is in the database alone."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the session."""
    op.add_column("results", sa.Column("session", sa.String(length=128), nullable=True))
