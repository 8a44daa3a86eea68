"""The installation on this machine: its files, environment and services; whether they are as they should be.

`deploy/install.sh` writes them, and works where no Python does. This package checks what it wrote, and
imports what an older tool left. It never changes an environment, and never touches claude-mem's files.
"""
