"""An independent model of the core: one event at a time, plain Python, no closed form, no batches.

Written from the decisions, not from the code: the step-by-step recursion R <- (R + 1) L, SciPy's Beta quantile, lists
of events instead of counters, and the whole history of an actor replayed when a tool is taken out of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from scipy import stats

from fuseboard_schemas.records import Outcome
from fuseboard_streams.core.settings import SECOND, CoreSettings
from tests.support.calls import T0, Call


@dataclass
class Event:
    """An event that a statistic took."""

    failed: bool
    tool: str
    p0: float = 0.0
    learned: bool = False
    settled: bool = False
    """Too long ago to be taken out again."""


@dataclass
class Statistic:
    """The evidence of one key."""

    settings: CoreSettings
    r: list[float] = field(default_factory=list)
    p0: float = 0.0
    history: list[Event] = field(default_factory=list)
    run: int = 0
    """Failures since the evidence last rested."""
    pending: list[Event] = field(default_factory=list)
    parked: list[Event] = field(default_factory=list)
    learned: list[Event] = field(default_factory=list)
    first_p0: float = 0.0
    pooled: bool = False
    """It pools an actor's tools: it trips only on evidence that no single tool explains."""
    frozen: bool = False
    closed_at: float = -math.inf
    trace_windows: dict[str, tuple[float, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.r = [0.0] * len(self.settings.failure.odds)
        self.p0 = self.first_p0 = self.null()

    def null(self) -> float:
        """The quantile of the posterior, from at most the effective number of learned calls."""
        params = self.settings.failure
        n, f = len(self.learned), sum(e.failed for e in self.learned)
        believed = min(n, params.effective)
        failures = f * believed / n if n else 0.0
        a, b = params.prior_alpha + failures, params.prior_beta + believed - failures
        return max(params.floor, float(stats.beta.ppf(params.quantile, a, b)))

    @property
    def mean(self) -> float:
        """The e-value."""
        return sum(self.r) / len(self.r)

    def step(self, failed: bool, p0: float) -> None:
        """One step of the recursion."""
        for i, theta in enumerate(self.settings.failure.odds):
            q = theta * p0 / (1 + (theta - 1) * p0)
            self.r[i] = (self.r[i] + 1) * (q / p0 if failed else (1 - q) / (1 - p0))

    def take(self, failed: bool, tool: str) -> str | None:
        """Take one event; says whether it brought the evidence to a level."""
        before = self.mean
        event = Event(failed, tool)
        if failed:
            self.run = 1 if before <= 1 / self.p0 else self.run + 1
            self.p0 = self.null()
        self.step(failed, self.p0)
        event.p0 = self.p0
        self.history.append(event)
        if len(self.removable()) > 32:
            self.removable()[0].settled = True
        if self.mean < self.settings.failure.warn:
            self.learn(event)
        params = self.settings.failure
        warned = failed and before < params.warn <= self.mean
        tripped = failed and self.mean >= params.trip
        if self.pooled and failed and (tripped or (self.mean >= params.warn and self.run >= 32)):
            least, blamed = min((self.without(tool), tool) for tool in {e.tool for e in self.removable()})
            if least < params.trip / params.explained:
                tripped = False
            if least < params.warn and self.run >= 32:
                self.take_out(blamed)
        if tripped:
            self.restart()
            self.frozen = True
            return "trip+warn" if warned else "trip"
        return "warn" if warned else None

    def removable(self) -> list[Event]:
        """The failures that can still be taken out."""
        return [e for e in self.history if e.failed and not e.settled]

    def learn(self, event: Event) -> None:
        """Blocks of a period: the filling one, the parked one, and what has been learned."""
        event.learned = True
        self.pending.append(event)
        if len(self.pending) == self.settings.failure.period:
            self.learned += self.parked
            self.parked, self.pending = self.pending, []

    def restart(self) -> None:
        """Begin anew; what was learned stays."""
        self.r = [0.0] * len(self.r)
        self.history = []
        self.run = 0
        self.first_p0 = self.p0

    def take_out(self, tool: str) -> None:
        """Replay the history without the tool's failures; of the failures only the last 32 can still be removed."""
        removed = [e for e in self.history if e.failed and e.tool == tool and not e.settled]
        for event in removed:
            for block in (self.pending, self.parked, self.learned):
                if any(e is event for e in block):
                    block[:] = [e for e in block if e is not event]
        self.history = [e for e in self.history if not any(e is r for r in removed)]
        self.r, self.p0 = self.replay(self.history)
        self.run = min(self.run, len(self.removable()))

    def replay(self, events: list[Event]) -> tuple[list[float], float]:
        """R and the null after these events alone."""
        alone = Statistic(self.settings)
        p0 = self.first_p0
        for event in events:
            if event.failed:
                p0 = event.p0
            alone.step(event.failed, p0)
        return alone.r, p0

    def without(self, tool: str) -> float:
        """The e-value that would be left without the removable failures of a tool."""
        kept = [e for e in self.history if not (e.failed and e.tool == tool and not e.settled)]
        return sum(self.replay(kept)[0]) / len(self.r)

    def allows(self, trace: str | None, now: float) -> bool:
        """Whether a failure of this trace may be counted; counts it if so."""
        if trace is None:
            return True
        params = self.settings.failure
        start, count = self.trace_windows.get(trace, (-math.inf, 0))
        if now - start >= params.cap_window_us:
            start, count = now, 0
        if count == params.cap:
            return False
        self.trace_windows[trace] = start, count + 1
        return True


@dataclass
class Finding:
    """What the model found: which level, where, for which key."""

    at: int
    key: str
    level: str


class Model:
    """A shard without breakers' timers: it is told when a breaker closes."""

    def __init__(self, settings: CoreSettings) -> None:
        self.settings = settings
        self.tools: dict[tuple[str, str], Statistic] = {}
        self.actors: dict[str, Statistic] = {}
        self.stream = 0.0
        self.seen: dict[tuple[int, str], set[int]] = {}
        self.findings: list[Finding] = []

    def close(self, key: str, at_us: float) -> None:
        """A breaker has closed."""
        statistic = self.statistic(key)
        statistic.frozen = False
        statistic.closed_at = at_us

    def statistic(self, key: str) -> Statistic:
        """The statistic of ``actor`` or ``actor/tool``."""
        actor, _, tool = key.partition("/")
        return self.tools[actor, tool] if tool else self.actors[actor]

    def fold(self, index: int, call: Call) -> None:
        """Take one call."""
        arrival = T0 + round((call.at if call.arrival is None else call.arrival) * SECOND)
        ts = T0 + round(call.at * SECOND)
        ts = arrival if ts > arrival + self.settings.future_tolerance_us else ts
        self.stream = max(self.stream, ts)
        tool = self.tools.setdefault((call.actor, call.tool), Statistic(self.settings))
        actor = self.actors.setdefault(call.actor, Statistic(self.settings, pooled=True))
        if self.repeated(call):
            return
        counts = call.outcome in (Outcome.OK, Outcome.ERROR, Outcome.TIMEOUT)
        if not counts or self.stream - ts > self.settings.late_after_us or (call.probe and call.gate):
            return
        start = ts - (call.duration_ms or 0) * 1000
        if tool.frozen or start <= tool.closed_at:
            return
        failed = call.outcome is not Outcome.OK
        name = f"{call.actor}/{call.tool}"
        if not failed or tool.allows(call.trace, self.stream):
            level = tool.take(failed, call.tool)
            if level:
                self.findings.append(Finding(index, name, level))
                if "warn" in level and not actor.frozen:
                    actor.take_out(call.tool)
        tool = self.tools[call.actor, call.tool]
        if tool.frozen or tool.mean >= self.settings.failure.warn:
            return
        if actor.frozen or start <= actor.closed_at or (failed and not actor.allows(call.trace, self.stream)):
            return
        level = actor.take(failed, call.tool)
        if level:
            self.findings.append(Finding(index, call.actor, level))

    def repeated(self, call: Call) -> bool:
        """Whether the client's number has been seen, or is too old to tell."""
        if call.seq is None:
            return False
        seen = self.seen.setdefault((call.client, call.actor), set())
        known = call.seq in seen or (bool(seen) and call.seq <= max(seen) - 63)
        seen.add(call.seq)
        return known
