"""What `deploy/` promises, tried with the programs that read it."""
