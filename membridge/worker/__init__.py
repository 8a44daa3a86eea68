"""A node as a worker: runs LLM tasks with the `claude` program and reports under a lease.

Never picks a task by itself and never reports after its lease expired: the coordinator decides both.
"""
