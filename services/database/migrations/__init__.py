"""Migrations: how the tables came to be, one module per step in `versions`, run by Alembic.

Never runs by itself: a service migrates when it starts.
"""
