"""Services beside the node daemon, each a part of `membridge up` or a process of its own.

They stand on `membridge`. Never imported by it.
"""
