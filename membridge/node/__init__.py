"""The node daemon: one process per machine. Composition, endpoints and what runs by itself."""
