"""The gateway: answers front ends, browsers and old clients over HTTP. It has no database.

It never writes a file: what it has to remember is in KV.
"""
