"""Merging memories: rows of two databases become one, by natural keys, and nothing that a user's agent wrote is lost."""
