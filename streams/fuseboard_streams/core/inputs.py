"""What a shard is given at a time: the next records of each of its inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from fuseboard_streams.core.events import DECISIONS, REQUESTS, TRACES

if TYPE_CHECKING:
    from fuseboard_schemas.records import EnforcementAck, Override, Pane, Signal
    from fuseboard_streams.core.events import ActorEvents
    from fuseboard_streams.core.prepare import ToolCalls

TOOL_CALLS: Final = "tool-calls"
SIGNALS: Final = "signals"
OVERRIDES: Final = "overrides"
PANES: Final = "panes"
ACKS: Final = "enforcement-acks"
EVENT_ORDER: Final = (REQUESTS, DECISIONS, TRACES)
"""The order in which a batch's events that are no tool calls are folded."""
DATED: Final = (TOOL_CALLS, TRACES, DECISIONS, REQUESTS, SIGNALS, OVERRIDES)
"""The topics whose records move stream time. A topic's place in this list is its number in the keys of replay windows
in the state log: never change it, add new ones at the end."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Received(Generic[R]):
    """A record, and where and when it was read."""

    offset: int
    arrival: int
    """When the broker appended it, microseconds."""
    record: R


@dataclass(slots=True)
class Inputs:
    """The next records of one shard, each topic's in partition order."""

    overrides: list[Received[Override]] = field(default_factory=list)
    signals: list[Received[Signal]] = field(default_factory=list)
    panes: list[Received[Pane]] = field(default_factory=list)
    events: dict[str, ActorEvents] = field(default_factory=dict)
    """By topic: `EVENT_ORDER`."""
    calls: ToolCalls | None = None
    acks: list[Received[EnforcementAck]] = field(default_factory=list)

    def __len__(self) -> int:
        """The number of records."""
        columns = sum(map(len, self.events.values())) + (len(self.calls) if self.calls is not None else 0)
        return columns + len(self.overrides) + len(self.signals) + len(self.panes) + len(self.acks)
