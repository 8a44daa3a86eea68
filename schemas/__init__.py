"""What crosses a process boundary, declared once: wire structs, subjects, streams, buckets, error codes.

Imports msgspec and nothing of ours. Never does I/O and never decides anything.
"""
