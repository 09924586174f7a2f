"""What a portrait of an actor says: plain data. Times are microseconds since 1970-01-01 UTC, money is micro-dollars."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "ActorPortrait", "BurnPortrait", "CapPortrait", "FailurePortrait", "HoldPortrait", "LossPortrait",
    "SessionsPortrait", "SilencePortrait", "ViolationsPortrait", "WaitingPortrait", "WindowPortrait",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class FailurePortrait:
    """The failure statistic of one tool of the actor, or of the actor as a whole."""

    tool: str | None
    """None: the actor as a whole."""
    rule: str | None
    """None: no rule is for it, and what follows decides nothing."""
    mode: str | None
    null_p0: float
    """What the next failure is held against: normal is at most this."""
    learned_calls: int
    """Calls that the null was learned from, successes since the last failure among them."""
    learned_failures: int
    waiting_calls: int
    """Calls that are learned later."""
    evidence_log10: float | None
    """Of the statistic now, rounded to 6 digits; None: there is none."""
    warn_log10: float
    trip_log10: float
    run_calls: int
    """Counted since the evidence last rested."""
    run_failures: int
    run_since_us: int | None
    suspect: bool
    """Whether it is at warn level, so that nothing is learned."""
    resting: bool
    """Whether it has tripped: nothing is counted until its breaker closes."""
    begins_anew: bool
    """Whether its next call starts from the prior: it has been idle for too long, or its rule has changed."""
    failures_to_trip: int | None
    """How many failures in a row, each of another trace, would trip it now; None: more than 1,000, or none can."""
    last_seen_us: int


@dataclass(frozen=True, slots=True)
class CapPortrait:
    """A hard cap."""

    rule: str
    mode: str
    daily: bool
    """Of the day by UTC; else of one event."""
    limit_usd_micros: int
    spent_usd_micros: int | None
    """Since midnight UTC of stream time; None for the cap of one event."""


@dataclass(frozen=True, slots=True)
class WindowPortrait:
    """A pair of windows of a budget: it burns while both limits are reached."""

    long_us: int
    spent_long_usd_micros: int
    limit_long_usd_micros: int
    short_us: int
    spent_short_usd_micros: int
    limit_short_usd_micros: int

    @property
    def burning(self) -> bool:
        """Whether both limits are reached."""
        return (
            self.spent_long_usd_micros >= self.limit_long_usd_micros
            and self.spent_short_usd_micros >= self.limit_short_usd_micros
        )


@dataclass(frozen=True, slots=True)
class BurnPortrait:
    """A budget and how fast it is spent."""

    rule: str
    mode: str
    budget_usd_micros: int
    windows: tuple[WindowPortrait, ...]


@dataclass(frozen=True, slots=True)
class ViolationsPortrait:
    """In how many traces a policy denied something lately."""

    rule: str
    mode: str
    traces: int
    limit: int
    of_last: int
    """Actions that are looked at."""
    within_us: int
    severities: tuple[str, ...]
    """That count; none: all."""


@dataclass(frozen=True, slots=True)
class SessionsPortrait:
    """Sessions that are half way to their limit, or further; which they are is not kept."""

    rule: str
    mode: str
    followed: int
    """Sessions of the actor that are known at all."""
    near: int
    most_failures: int
    """Failures in a row, of the session that has the most."""
    limit_failures: int
    most_identical: int
    """Identical calls in a row, likewise."""
    limit_identical: int


@dataclass(frozen=True, slots=True)
class SilencePortrait:
    """Session requests that nothing has answered."""

    rule: str
    mode: str
    requests: int
    limit_requests: int
    since_us: int | None
    lasting_us: int
    """How long it must last."""


@dataclass(frozen=True, slots=True)
class LossPortrait:
    """Numbered events that are missing."""

    rule: str
    mode: str
    missing: int
    expected: int
    limit_share: float
    minimum: int
    within_us: int


@dataclass(frozen=True, slots=True)
class HoldPortrait:
    """A hold on the actor, one of its tools or sessions; or one that a rule that only watches would have."""

    breaker_id: str
    state: str
    rule: str
    watching: bool
    """Whether it is only imagined: the rule is in shadow or warns."""
    since_us: int
    action: str | None = None
    recovery: str | None = None
    condition: str | None = None
    """FIRED, ON or CLEARED."""
    rung: int | None = None
    """From 1."""
    rungs: int | None = None
    reason: str | None = None
    last_on_us: int | None = None
    """When the condition was last on, as far as is known."""
    quiet_us: int | None = None
    """How long it must have been gone, for recovery by clear."""
    until_us: int | None = None
    """When its window rolls over; of one that is only imagined, when it would end."""
    climb_at_us: int | None = None
    probe_at_us: int | None = None
    """When its cooldown is over."""
    probes_ok: int | None = None
    probes_failed: int | None = None


@dataclass(frozen=True, slots=True)
class WaitingPortrait:
    """A trip that waits for an answer of the guard, or was refused and is asked no more."""

    rule: str
    metric: str
    reason: str
    evidence_log10: float | None


@dataclass(frozen=True, slots=True)
class ActorPortrait:
    """Everything that a shard knows of one actor."""

    tenant: str
    actor: str
    stream_time_us: int
    rules_version: str
    last_seen_us: int | None
    """None: only its breakers are known."""
    clients: int
    """Of its calls, seen within a minute of stream time."""
    calls_made: int | None
    """As far as they are counted for rules about first uses; None: nobody asks."""
    failures: tuple[FailurePortrait, ...] = ()
    """The actor's own first, then its tools by name."""
    caps: tuple[CapPortrait, ...] = ()
    budgets: tuple[BurnPortrait, ...] = ()
    violations: tuple[ViolationsPortrait, ...] = ()
    sessions: tuple[SessionsPortrait, ...] = ()
    silences: tuple[SilencePortrait, ...] = ()
    losses: tuple[LossPortrait, ...] = ()
    holds: tuple[HoldPortrait, ...] = ()
    waiting: tuple[WaitingPortrait, ...] = field(default=())
