"""Benchmarks: each file starts what it needs, runs a peer or a limit beside it, and prints metrics."""
