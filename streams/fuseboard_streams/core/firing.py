"""What a rule found: where in a run of events, on whom, and what is said about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_schemas.keys import Target
    from fuseboard_schemas.records import SignalLevel
    from fuseboard_streams.core.rulebook import RuleView


@dataclass(frozen=True, slots=True)
class Facts:
    """What a firing rests on, for people; nothing is decided by it."""

    reason: str
    value: float | None = None
    """In the metric's unit."""
    calls: int | None = None
    failures: int | None = None
    since_us: int | None = None
    log10: float | None = None
    """Of a failure statistic: the logarithm of its mean, and its null."""
    null_p0: float | None = None


@dataclass(frozen=True, slots=True)
class Firing:
    """A rule's test came true."""

    position: int
    """Of the event in the run; of a tick that of the first event after it."""
    time_us: int
    """Stream time."""
    view: RuleView
    variant: int
    target: Target
    facts: Facts
    decided: int | None = None
    """Position of the event that decided; None for a tick."""
    until_us: int | None = None
    """When what it asks for ends by itself."""
    warning: bool = False
    """Nothing follows but a signal: its evidence has come to the warn level."""
    level: SignalLevel | None = None
    """Of what is only said, and trips nothing: the new state of an objective."""

    @property
    def order(self) -> tuple[int, int, int, str, str, str]:
        """Firings are taken in the order of the log, ticks before the event that follows them, then by rule.

        What one tick finds of one rule is taken by its targets' names: rows are numbered as they happen to be free.
        """
        target = self.target
        return self.position, self.time_us, self.view.order, target.tenant, target.actor or "", target.tool or ""


Settled: TypeAlias = "Callable[[RuleView, int, Target, int, int | None], bool]"
"""Rule, variant, target, stream time and when it would end by itself, to whether firing then, or before, changes
nothing."""
