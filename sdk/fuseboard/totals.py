"""What has happened in a task so far."""

from __future__ import annotations


class TaskTotals:
    """What has happened in a task so far; filled from any thread by appending, which needs no lock.

    Args:
        started: The monotonic clock at the task's start, in seconds.
    """

    __slots__ = ("_calls", "_models", "started")

    def __init__(self, started: float) -> None:
        self.started = started
        self._calls: list[float] = []
        self._models: list[tuple[int, int]] = []

    def add_call(self, started: float) -> None:
        """Count a tool call that has ended, by the monotonic clock at its start."""
        self._calls.append(started)

    def add_model(self, tokens_in: int | None, tokens_out: int | None) -> None:
        """Count a model call that has ended."""
        self._models.append((tokens_in or 0, tokens_out or 0))

    @property
    def tool_calls(self) -> int:
        """Tool calls made."""
        return len(self._calls)

    @property
    def model_calls(self) -> int:
        """Model calls made."""
        return len(self._models)

    @property
    def tokens_in(self) -> int:
        """Tokens sent."""
        return sum(tokens for tokens, _ in self._models)

    @property
    def tokens_out(self) -> int:
        """Tokens received."""
        return sum(tokens for _, tokens in self._models)

    @property
    def time_to_first_action_ms(self) -> int | None:
        """From the start to the first tool call."""
        return round((min(self._calls) - self.started) * 1000) if self._calls else None
