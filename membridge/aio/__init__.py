"""What asyncio lacks here: deadlines, back-off, parts of a process, blocking work in threads.

Every process of ours may use it. Never knows NATS, S3, SQLite or a project.
"""
