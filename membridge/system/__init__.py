"""The operating system: files, clocks, signals, logging, pid files, the installer's receipt; its errors as ours.

Never starts a task, and never knows why a file is written: its caller does.
"""
