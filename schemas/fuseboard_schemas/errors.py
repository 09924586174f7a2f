"""The root of every error that Fuseboard raises on purpose."""


class FuseboardError(Exception):
    """Something a person can mend; the message says what, where and what to do."""

    exit_code = 1


class ConfigurationError(FuseboardError):
    """Wrong usage or configuration."""

    exit_code = 2


class UnreachableError(FuseboardError):
    """A server could not be reached."""

    exit_code = 3
