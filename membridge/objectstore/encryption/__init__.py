"""Encryption of the object store: keys, format, the store that encrypts, rotation.

The backend sees only names and sizes. Never writes a plain object once encryption is on, and never logs a key.
"""
