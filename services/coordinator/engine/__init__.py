"""The rules of the task runtime as one pure function, which changes a state by an event and returns effects.

It must never do I/O, read a clock or make a random choice: `shell` hands in what it needs and carries the effects out.
"""
