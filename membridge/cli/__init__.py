"""The `membridge` command: asks the local daemon, or does the work itself when none runs.

Turns options into a request, and a reply into text. Never holds a rule.
"""
