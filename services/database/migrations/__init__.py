"""The environment in which Alembic runs the steps of every service. It never holds a step of its own."""
