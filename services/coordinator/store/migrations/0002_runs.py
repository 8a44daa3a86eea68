"""Contexts and agents of any name, audit records of whoever asked, and which attempt a result belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

#: Columns that hold names of others' making. SQLite never minded their length.
WIDER = (("tasks", "context_id"), ("tasks", "agent_slug"), ("leases", "context_id"), ("audit", "actor"))


def upgrade() -> None:
    """Widen the names, and let runs be listed."""
    if op.get_context().dialect.name != "sqlite":
        for table, column in WIDER:
            op.alter_column(table, column, type_=sa.String(length=200), existing_nullable=False)
    op.add_column("results", sa.Column("lease_id", sa.String(length=36), nullable=True))
    op.execute(
        "UPDATE results SET lease_id ="
        " (SELECT artifacts.job_id FROM artifacts WHERE artifacts.id = results.artifact_id)"
    )
    op.create_index("results_lease", "results", ["lease_id"], unique=False)
    op.create_index("leases_started", "leases", ["started_at", "id"], unique=False)
