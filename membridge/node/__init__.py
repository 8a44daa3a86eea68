"""The node daemon: one process per machine, its operations, and what it does unasked.

Composes what the layers below can do. Never holds a rule of merging, fencing or retention.
"""
