"""Object stores: one small protocol, two backends (JetStream and S3), and encryption over either.

Knows bytes and keys. Never knows snapshots, projects or the subjects of NATS.
"""
