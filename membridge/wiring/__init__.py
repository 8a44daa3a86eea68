"""Build what a process works with from its settings: bus, object store, keys, replica, lane. Composition, no decisions.

The node daemon, the command line and every service compose from here; nothing here knows any of them.
"""
