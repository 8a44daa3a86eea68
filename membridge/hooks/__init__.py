"""Claude Code's hooks, the daemon's side: takes their events from the spool and answers a session start.

Never prints into a session and never makes one wait longer than the settings allow.
"""
