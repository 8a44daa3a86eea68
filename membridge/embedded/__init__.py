"""The nats-server that comes with the program, the unit files, and the demo's sample database.

Starts, supervises and stops its own server. Never touches a server that something else started.
"""
