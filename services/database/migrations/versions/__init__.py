"""The migration steps, oldest first by their numbers.

Never change a step that was released: add one.
"""
