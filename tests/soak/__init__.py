"""Three real nodes with writers, and faults drawn at random: at the end all remember the same, and nothing is lost."""
