"""A rule's grip on a breaker: how hard it holds, since when, and what releases it. Plain, immutable data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from fuseboard_schemas.axes import axes_of
from fuseboard_schemas.records import Action, Recovery, Severity

if TYPE_CHECKING:
    from fuseboard_streams.core.ruleset import RecoveryPlan, Rung

__all__ = ["Condition", "Evidence", "Moment", "RuleHold", "ceil_second", "cooldown_of"]

DEFAULT_BASELINE = 0.005
"""What probes are held against when a rule knows no baseline: the lowest that the failure statistic works with."""
_SECOND = 1_000_000
_NOTHING_ABOVE = frozenset({Action.DISABLE_TOOL, Action.HALT})


@dataclass(frozen=True, slots=True)
class Moment:
    """When and by which event something is decided."""

    time_us: int
    """Stream time of the shard, microseconds since 1970-01-01 UTC."""
    event_id: str | None = None
    """Id of the deciding event."""
    offset: int | None = None
    """Offset of that event in its topic's partition."""
    made_us: int | None = None
    """When what decided was done, microseconds: its call began, or a finding was had; None: at ``time_us``."""

    @property
    def made_at(self) -> int:
        """When what decided was done: never after it is decided."""
        return self.time_us if self.made_us is None else min(self.time_us, self.made_us)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a trip rests on; what a test does not know is None."""

    log10: float | None = None
    """log10 of the deciding statistic, rounded to 6 digits; for people, decides nothing."""
    null_p0: float | None = None
    """Failure probability that the statistic took for normal, strictly between 0 and 1."""
    calls: int | None = None
    """Calls counted."""
    failures: int | None = None
    """Failures among them."""
    since_us: int | None = None
    """Start of the evidence, microseconds."""


class Condition(StrEnum):
    """What is known of the condition behind a hold."""

    FIRED = "FIRED"
    """Its rule fired, or its probes failed, and nothing has been said since."""
    ON = "ON"
    """It is on, and stays so until something else is said."""
    CLEARED = "CLEARED"
    """It was said to be gone, or probes or quiet have shown it."""


@dataclass(frozen=True, slots=True)
class RuleHold:
    """One rule's hold on one breaker. Times are microseconds of stream time."""

    rule: str
    rules_version: str
    ladder: tuple[Rung, ...]
    """As it was when the hold began: a change of the rules shows in the next hold."""
    plan: RecoveryPlan
    runbook: str | None
    evidence: Evidence
    reason: str
    """The firing in one line; empty: made from the evidence."""
    first_since: int
    """When the hold began."""
    since: int
    """When it came to its present rung."""
    epoch: int
    """Of the command that brought the present rung into force."""
    applied_at: int
    """From when on calls count as made under the present rung: its first acknowledgement, else 5 s after it came."""
    last_on: int
    """When the condition was last on, as far as is known; the quiet clock of ``CLEAR`` runs from here."""
    rung: int = 0
    """Its place on the ladder, from 0."""
    condition: Condition = Condition.FIRED
    until: int | None = None
    """When its window rolls over, a whole second; only for ``WINDOW``."""
    expires_at: int | None = None
    """When it ends at the latest, a whole second; only on a session."""
    climb_at: int | None = None
    """When it climbs if its condition has not cleared, a whole second; None: only if its rule fires again, or never."""
    probe_at: int | None = None
    """When its cooldown is over, a whole second; only for ``PROBE``."""
    cooldown_us: int = 0
    """Length of the last cooldown, jitter included; 0 for what does not probe."""
    backoff: int = 0
    """How often its cooldown has been doubled."""
    event_id: str | None = None
    """The event that brought it to this rung; None when a timer did."""
    offset: int | None = None
    """That event's offset."""

    @property
    def action(self) -> Action:
        """What its present rung asks for."""
        return self.ladder[self.rung].action

    @property
    def actions(self) -> tuple[Action, ...]:
        """What it enforces: its rung's action, and those of lower rungs that the higher ones do not contain.

        Else a step from FAST_MODEL_ONLY up to READ_ONLY would give all models back.
        """
        return _uncontained(tuple(rung.action for rung in self.ladder[: self.rung + 1]))

    @property
    def severity(self) -> Severity:
        """How urgently its present rung needs a person."""
        return self.ladder[self.rung].severity

    @property
    def recovery(self) -> Recovery:
        """What releases it: a critical rung waits for a person, whatever the plan says."""
        return Recovery.PERSON if self.severity is Severity.CRITICAL else self.plan.by

    @property
    def probes(self) -> bool:
        """Whether probes release it."""
        return self.recovery is Recovery.PROBE

    @property
    def above(self) -> Rung | None:
        """The next rung; None at the top, and there is none above a tool that is off or a run that is halted."""
        if self.rung + 1 >= len(self.ladder) or self.action in _NOTHING_ABOVE:
            return None
        return self.ladder[self.rung + 1]

    @property
    def listens(self) -> bool:
        """Whether it climbs when its rule fires again."""
        return self.above is not None and self.above.after_us is None

    @property
    def baseline(self) -> float:
        """The failure probability that its probes are held against."""
        return DEFAULT_BASELINE if self.evidence.null_p0 is None else self.evidence.null_p0


@lru_cache(maxsize=1024)
def _uncontained(climbed: tuple[Action, ...]) -> tuple[Action, ...]:
    return tuple(
        action
        for i, action in enumerate(climbed)
        if not any(axes_of([later]).contains(axes_of([action])) for later in climbed[i + 1 :])
    )


def cooldown_of(plan: RecoveryPlan, backoff: int) -> int:
    """The cooldown before jitter, doubled so many times, up to the plan's maximum; microseconds."""
    # The doubling is cut where it surely exceeds any maximum: a shift by thousands would build a huge number.
    return min(plan.cooldown_us << min(backoff, 62), plan.max_cooldown_us)


def ceil_second(time_us: int) -> int:
    """The first whole second not before a time, both in microseconds."""
    return -(-time_us // _SECOND) * _SECOND
