"""The stream processor: core, worker and command line."""
