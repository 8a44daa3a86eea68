"""Membridge: one claude-mem memory on several machines. The node daemon, its lanes and its commands."""

__version__ = "0.1.0"
