"""Leadership of a project: who commits, under which epoch, and for how long it may believe so."""
