"""The operating system: files, clocks, signals, logging, pid files, and its errors as ours.

Never starts a task, and never knows why a file is written: its caller does.
"""
