"""A node as a worker: it takes LLM tasks, runs them with the `claude` program, and reports under its lease."""
