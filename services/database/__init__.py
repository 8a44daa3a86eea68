"""The services' SQL: engine, tables, statements, migrations, for SQLite and PostgreSQL.

The only package that imports SQLAlchemy. Never speaks NATS, never decides what a service does.
"""
