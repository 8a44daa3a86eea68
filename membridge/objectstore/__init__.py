"""Object stores: one small protocol, two backends. Knows bytes and keys, nothing of snapshots or NATS' subjects."""
