"""Merges two databases: rows of both become one memory, and no row that an agent wrote is lost.

Speaks rows and keys. Never reads an object store and never knows which node is primary.
"""
