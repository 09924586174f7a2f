"""SIGTERM and SIGINT: finish the transaction, leave the group, exit 0."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

_PATIENCE_S: Final = 20.0
"""How long a stopping worker waits for a broker that does not answer."""


class Shutdown:
    """Whether the worker should stop, and since when.

    As a context manager it listens to SIGTERM and SIGINT, where it may; a second signal ends the process at once.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._event = threading.Event()
        self._before: dict[int, object] = {}

    def request(self) -> None:
        """Ask for a stop; from any thread."""
        if self._since is None:
            self._since = time.monotonic()
        self._event.set()

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for."""
        return self._event.is_set()

    def out_of_patience(self) -> bool:
        """Whether a stop was asked for so long ago that waiting for a broker must end."""
        return self._since is not None and time.monotonic() - self._since > _PATIENCE_S

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.request()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned
