"""Merging memories: rows of two databases become one memory, and nothing that an agent wrote is lost."""
