"""Why a worker stops, and why a transaction starts over."""

from __future__ import annotations

from fuseboard_schemas.errors import ConfigurationError, FuseboardError


class WorkerError(FuseboardError):
    """The worker cannot go on; the message says why and what to do."""


class StateConflictError(ConfigurationError):
    """The state log, the inputs and the group's committed offsets do not belong together."""


class TransactionAborted(Exception):
    """The open transaction has been aborted, for good: nothing of it will ever be visible.

    Attributes:
        reason: What the broker or the client said.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
