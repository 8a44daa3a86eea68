"""The task runtime's coordinator: accepts, queues, routes and fences LLM tasks.

Workers execute them. Never runs a task itself, never hands one out before the database has stored it.
"""
