"""The rules file: read, checked, explained, and compiled into what the core folds with."""
