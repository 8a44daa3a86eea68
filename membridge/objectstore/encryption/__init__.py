"""Encryption of what the object store holds: keys, format, the store that seals, rotation."""
