"""claude-mem's SQLite database and worker process, as those of a foreign program.

Reads and writes rows of its tables. Never changes a table's definition, never stops claude-mem for longer than a
short transaction.
"""
