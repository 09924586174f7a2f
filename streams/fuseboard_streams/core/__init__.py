"""The pure core: batches and a clock in, new state and records out."""
