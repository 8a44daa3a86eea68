"""Servers that come with the program, for a machine that has none and for the tests."""
