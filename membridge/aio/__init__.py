"""What asyncio lacks here: deadlines, parts of a process, blocking work in threads, tasks side by side.

Nothing in it knows NATS, S3, SQLite or a project.
"""
