"""Settings of the breakers' automatic life: cooldowns, probes, forgetting."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fuseboard_schemas.errors import ConfigurationError

_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class BreakerParams:
    """How long a breaker stays open and how it is let in again. Times are microseconds of stream time.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    base_cooldown_us: int = 30 * _SECOND
    """Cooldown of the first opening, before jitter; it doubles at every reopening."""
    max_cooldown_us: int = 300 * _SECOND
    """Where the doubling ends."""
    probes: int = 10
    """Probe calls per wave, shared among the actor's clients."""
    max_probes: int = 40
    """Results of one half-open period after which an undecided test reopens."""
    wave_us: int = 30 * _SECOND
    """How long a wave waits for its results before the next one is opened."""
    empty_waves: int = 3
    """Waves in a row without a result after which the breaker reopens."""
    forget_after_us: int = 7 * 86_400 * _SECOND
    """A breaker closed for longer is removed, with a tombstone."""
    forget_session_us: int = 300 * _SECOND
    """A session's breaker closed for longer is removed: hardly anybody comes back to a session that is over."""
    client_window_us: int = 60 * _SECOND
    """A client seen within this time shares a wave's probes."""
    p1_floor: float = 0.3
    """Smallest failure probability that the probe test takes for "still broken"."""
    odds: float = 16.0
    """Factor on the odds of the baseline that makes "still broken" of it."""
    error: float = 0.01
    """Both error rates of the probe test."""
    late_results: bool = True
    """Whether results of earlier waves of the same half-open period still enter the test.

    Off: only results admitted under the current epoch count, so a probe that takes longer than its wave (a call that
    hangs until its timeout) never speaks: with half of all calls hanging for 30 s or more, the quick half closes the
    breaker in 91 to 100% of periods (simulated, one client, a call every 1 to 10 s). On: such a probe counts while the
    period lasts, and that falls to 0 to 10% for timeouts up to 60 s (to 70% at 90 s with a call every second).
    """

    def __post_init__(self) -> None:
        # All of these are counts or durations: zero or less would make a timer that fires at once, for ever.
        for field in fields(self):
            if field.name != "late_results" and not getattr(self, field.name) > 0:
                raise ConfigurationError(
                    f"breaker setting {field.name} is {getattr(self, field.name)!r}, expected a number above 0: "
                    "correct it in the settings file or remove it for the default."
                )
        if not (self.p1_floor < 1.0 < self.odds and self.error < 0.5 and self.base_cooldown_us > 1):
            raise ConfigurationError(
                f"breaker settings are p1_floor={self.p1_floor!r}, odds={self.odds!r}, error={self.error!r}, "
                f"base_cooldown_us={self.base_cooldown_us!r}; expected p1_floor < 1, odds > 1, error < 0.5 and a "
                "cooldown of at least 2 microseconds: correct them in the settings file or remove them."
            )

    @property
    def min_cooldown_us(self) -> int:
        """The shortest time between a transition and the timer that it starts.

        A rule that fires, or a probe's result, at stream time t makes no timer due before t + ``min_cooldown_us``,
        whatever the rule says. Whoever folds events in pieces relies on it: a piece spanning less stream time than
        this can run all timers known when it starts, cut at their times, and no timer made inside the piece falls due
        inside it. What people order and what is told at ticks may be due at once: it comes between pieces.
        """
        return min(
            min(self.base_cooldown_us, self.max_cooldown_us) // 2,
            self.wave_us,
            self.forget_after_us,
            self.forget_session_us,
        )
