"""What the operating system gives: files, clocks, signals, logging, pid files, and its errors as ours.

Never starts a task and never knows why a file is written: that is its caller's business.
"""
