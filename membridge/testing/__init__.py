"""What the demo, the tests and the benchmarks share: nodes as processes, a writer, the scenario.

Never imported by what serves a user, except by `membridge demo`.
"""
