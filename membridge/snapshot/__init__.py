"""The snapshot lane: a project's database as immutable, numbered states in an object store.

Speaks pages, objects and commits. Rows belong to `membridge.merge`, leadership to `membridge.leadership`: an epoch
arrives here as a value and is fenced by the commit itself.
"""
