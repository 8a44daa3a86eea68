"""What services share of SQL: opening SQLite and PostgreSQL, migrations per service, group commit.

Tables and statements are in each service's store. Never speaks NATS, never knows a service's tables.
"""
