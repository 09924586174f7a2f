"""The worker: the I/O around the core."""
