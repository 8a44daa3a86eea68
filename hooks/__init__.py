"""Claude Code hooks: one file of standard library per event. They import nothing of ours and never fail a session."""
