"""The peers of peers.py: each runs in an environment of its own, none is imported by the benchmarks."""
