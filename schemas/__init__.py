"""Wire structs and names: what crosses a process boundary, declared once.

Imports msgspec and nothing of ours; knows no I/O.
"""
