"""Builds from settings what a process works with: bus, object store, keys, replica, lane.

The node, the command line and every service compose from here. Never decides anything, never imports them.
"""
