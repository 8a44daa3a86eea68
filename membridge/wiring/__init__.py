"""Builds what a process works with from its settings: bus, object store, keys, replica, lane.

The node, the command line and every service compose from here. Never decides anything, never imports them.
"""
