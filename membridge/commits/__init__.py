"""The committed states of a project: head, chain, mirror, earlier states, tags, verification, gc.

Serves a process without a live database too. Never reads or writes a live database.
"""
