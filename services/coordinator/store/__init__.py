"""The task runtime's part of the database: tables, statements, queries, the epoch that fences, and migrations.

The only package of the coordinator that imports SQLAlchemy. Never speaks NATS, never decides about a task.
"""
