"""Leadership of a project: which node commits, under which epoch, and until when.

Never touches a database or an object: it grants an epoch, and the commit checks it.
"""
