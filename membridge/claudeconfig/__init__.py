"""Claude Code's own configuration between machines: what is portable of `~/.claude`, merged three ways.

Never reads credentials, history or sessions, and writes nothing but what its rules allow.
"""
