"""The airline's tools, as the recording knows them: what they do to the world, and how they fail."""

from __future__ import annotations

import random
import threading
from typing import Final

from fuseboard_schemas.records import Effect

EFFECTS: Final = {
    "book_reservation": Effect.WRITE,
    "cancel_reservation": Effect.IRREVERSIBLE,
    "send_certificate": Effect.IRREVERSIBLE,
    "transfer_to_human_agents": Effect.WRITE,
    "update_reservation_baggages": Effect.WRITE,
    "update_reservation_flights": Effect.WRITE,
    "update_reservation_passengers": Effect.WRITE,
}
"""Whatever is not here only reads."""


class AirlineError(RuntimeError):
    """The tool answered with the error that the recording holds: mostly a mistake of the agent's."""


class ServiceUnavailableError(RuntimeError):
    """The tool is down."""


class Outage:
    """A tool that fails for one actor while it lasts. Safe to use from several threads.

    Args:
        tool: The tool.
        actor: The actor.
        rate: The share of its calls that fail.
        seed: Of the choice which.
    """

    def __init__(self, tool: str, actor: str, rate: float, seed: int) -> None:
        self.tool = tool
        self.actor = actor
        self.rate = rate
        self._random = random.Random(seed)  # noqa: S311 - a repeatable choice, not a secret
        self._on = threading.Event()

    def begin(self) -> None:
        """The tool goes down."""
        self._on.set()

    def end(self) -> None:
        """The tool is repaired."""
        self._on.clear()

    def strikes(self, actor: str, tool: str) -> bool:
        """Whether this call fails."""
        return self._on.is_set() and (actor, tool) == (self.actor, self.tool) and self._random.random() < self.rate
