"""claude-mem's SQLite database and worker, as a foreign program's: its tables are read and written, never changed."""
