"""What joins the commits and a live database: push, pull, proposals, restore, backups, recovery.

Speaks pages, objects and commits. Never decides who leads: an epoch arrives as a value, and the commit itself fences
it. Rows belong to `membridge.merge`.
"""
