"""Random histories of a foreign writer, and whether the cheap way finds every row that changed."""
