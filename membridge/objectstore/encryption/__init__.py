"""Encryption of what the object store holds: keys, format, the store that encrypts, rotation.

The store sees names and sizes. Never writes a plain object once encryption is on, and never logs a key.
"""
