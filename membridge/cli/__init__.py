"""The `membridge` command: asks the local daemon, or does the work in its own process when none runs.

Commands hold no rules: they turn options into a request and a reply into text.
"""
