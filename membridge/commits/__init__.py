"""The committed states of a project: heads, chains, the mirror, earlier states, tags, verification, garbage collection.

It serves a process without a live database too; nothing in it reads or writes one.
"""
