"""Claude Code hooks: the plugin in `claude-code`, and the names of the hooks that it replaces.

Never imports a package of ours, never fails or delays a session.
"""
