"""Claude Code on this machine: its version, its settings, and Membridge's plugin in it.

Never touches a file that it did not write, but for hooks in settings.json that it was told to add or replace.
"""
