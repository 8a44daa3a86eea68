"""Claude Code hooks: one file of standard library per event.

Never imports a package of ours, never fails or delays a session.
"""
