"""The seam between the SDK and Kafka: what a message is, and what carries it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

BY_KEY = -1
"""The partition of a message that is placed by the hash of its key."""


@dataclass(frozen=True, slots=True)
class Message:
    """One encoded record on its way to Kafka.

    Attributes:
        topic: Full topic name, prefix included.
        partition: Partition to write to, or ``BY_KEY``.
        key: Record key, UTF-8.
        value: Record value in the Confluent wire format.
        headers: Record headers in the order they are sent.
    """

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of memory this message is counted as, bookkeeping included."""
        return 256 + len(self.value) + len(self.key) + sum(len(name) + len(value) for name, value in self.headers)


class Verdict(Enum):
    """What became of a message that was handed to a transport."""

    DELIVERED = "delivered"
    RETRY = "retry"
    """Not delivered now; the same bytes may succeed later."""
    REFUSED = "refused"
    """Never deliverable, whatever happens to the broker (for example too large)."""


class Transport(Protocol):
    """Carries messages to Kafka, in the order of the calls to :meth:`send`.

    All methods are called from one thread. A transport may lose everything it holds when it is closed: the
    publisher keeps its own copies until the report.
    """

    def send(self, message: Message, report: Callable[[Verdict, str], None]) -> bool:
        """Take a message; return False when there is no room now.

        Args:
            message: What to send.
            report: Called exactly once from :meth:`poll` with the verdict and a reason, unless the transport is
                closed before.
        """
        ...

    def poll(self, timeout: float) -> None:
        """Deliver reports, waiting at most ``timeout`` seconds for the first."""
        ...

    def close(self) -> None:
        """Drop whatever has not been delivered and free all resources."""
        ...

    def abandon(self) -> None:
        """Forget the transport in a forked child, whose copy of it has no threads and must never be touched."""
        ...
