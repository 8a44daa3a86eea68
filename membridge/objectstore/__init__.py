"""Object stores: one small protocol, two backends (JetStream and S3), and encryption around either.

Knows bytes and keys. Never knows snapshots, projects or the subjects of NATS.
"""
