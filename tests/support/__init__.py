"""What the tests and the benchmarks share: servers to run against."""
