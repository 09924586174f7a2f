"""Pure formatting: records and numbers in, lines of text out. Nothing here does I/O or looks at a clock."""
