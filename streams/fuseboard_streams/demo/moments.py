"""What happens during the demo, as facts with a time; the story and the summary are made of nothing else.

Every ``at_us`` is this machine's wall clock in microseconds since 1970-01-01 UTC, taken where the thing happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from fuseboard_schemas.records import BreakerCommand, Signal


@dataclass(frozen=True, slots=True)
class Attempt:
    """An agent's call has ended, or was refused."""

    actor: str
    tool: str
    at_us: int
    ok: bool
    probe: bool = False
    """It was let through a half-open breaker to see whether the tool works again."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The gate refused a call; the fields are those of the ``ToolBlocked`` that the agent caught."""

    actor: str
    tool: str
    at_us: int
    action: str
    scope: str
    breaker_id: str
    epoch: int
    retry_after: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Committed:
    """A breaker command could be read committed."""

    command: BreakerCommand
    at_us: int


@dataclass(frozen=True, slots=True)
class Signalled:
    """A signal could be read committed."""

    signal: Signal
    at_us: int


@dataclass(frozen=True, slots=True)
class Applied:
    """The agents' gate has a command in force."""

    breaker_id: str
    epoch: int
    at_us: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The worker has read the agents' acknowledgement of a command."""

    breaker_id: str
    epoch: int
    at_us: int


@dataclass(frozen=True, slots=True)
class Decided:
    """The call that decided a command, found in the topic at the offset that the command names."""

    breaker_id: str
    epoch: int
    event_id: str
    ended_us: int
    """The end of the call, as the SDK noted it in the agent."""


Moment: TypeAlias = Attempt | Refused | Committed | Signalled | Applied | Acknowledged | Decided
