"""What the demonstration, the tests and the benchmarks share: nodes as processes, a writer, the scenario.

Nothing that serves a user imports it, except `membridge demo`.
"""
