"""The rules in force, compiled: plain data that the core runs on. `fuseboard_streams.rules` makes it of a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from fuseboard_schemas.records import Action, Mode, Recovery, Scope, Severity

if TYPE_CHECKING:
    from fuseboard_detectors.burn import BurnPair
    from fuseboard_detectors.failure import FailureParams

_SECOND = 1_000_000
TRACED: Final = "sessions.traced"
SUCCESS: Final = "calls.ok"
VIOLATING: Final = "actions.violating"
COST: Final = "tasks.cost_usd"
GUARD: Final = "blast-radius"
"""The name under which the guard says what it holds back; no rule may have it."""
MEASURED: Final = frozenset({TRACED, SUCCESS, VIOLATING, COST})
"""What objectives can be about that the stream shows."""


# --- what follows when a rule fires


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of a ladder."""

    action: Action
    severity: Severity = Severity.TICKET
    after_us: int | None = None
    """Climb to it when the rung before has held for so long; None: when the test fires again."""


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """What releases a hold. Times are microseconds of stream time."""

    by: Recovery = Recovery.PROBE
    cooldown_us: int = 30 * _SECOND
    """Of the first opening, before jitter; it doubles at every reopening."""
    max_cooldown_us: int = 300 * _SECOND
    probes: int = 10
    """Probe calls of a wave."""
    quiet_us: int = 300 * _SECOND
    """For ``CLEAR``: how long the condition must have been gone."""


@dataclass(frozen=True, slots=True)
class Response:
    """What follows when a rule fires on a target."""

    rule: str
    ladder: tuple[Rung, ...]
    """At least one rung; a rule with a single action has one, and an objective, which never trips, none."""
    mode: Mode = Mode.ENFORCE
    recovery: RecoveryPlan = field(default_factory=RecoveryPlan)
    runbook: str | None = None
    rules_version: str = ""


# --- what a rule asks; each is one kind of test


@dataclass(frozen=True, slots=True)
class FailureTest:
    """`fuseboard_detectors.failure`: is a rate higher than its baseline?"""

    params: FailureParams


@dataclass(frozen=True, slots=True)
class DistinctTest:
    """`fuseboard_detectors.recent`: hits in so many distinct traces among an actor's last actions."""

    traces: int
    of_last: int
    within_us: int
    severities: frozenset[Severity] = frozenset()
    """Of the decisions that count; none: all."""


@dataclass(frozen=True, slots=True)
class BurnTest:
    """`fuseboard_detectors.burn`: a budget that is spent too fast."""

    budget_micro_usd: int
    pairs: tuple[BurnPair, ...]
    """Shares are already of ``budget_micro_usd``."""


@dataclass(frozen=True, slots=True)
class CapTest:
    """A hard limit on the cost of one event, or of one day by UTC."""

    micro_usd: int
    daily: bool


@dataclass(frozen=True, slots=True)
class RunsTest:
    """`fuseboard_detectors.loops`: a session that is stuck."""

    failures: int
    identical: int
    polling: tuple[str, ...] = ()
    """Patterns of tools that may repeat a call."""


@dataclass(frozen=True, slots=True)
class ExceedTest:
    """A value that exceeds its reference quantile more often than it used to."""

    quantile: float
    reference: int
    """Observations that make the reference."""
    params: FailureParams


@dataclass(frozen=True, slots=True)
class FirstUseTest:
    """An actor's first call of a tool, once it has made so many calls."""

    after: int


@dataclass(frozen=True, slots=True)
class SilenceTest:
    """Sessions are requested and nothing is heard."""

    requests: int
    lasting_us: int


@dataclass(frozen=True, slots=True)
class LostTest:
    """A share of an actor's numbered events is missing."""

    share: tuple[int, int]
    """As a ratio of whole numbers."""
    within_us: int
    minimum: int


@dataclass(frozen=True, slots=True)
class UngatedTest:
    """A call that was executed although its target had been open for so long."""

    after_us: int


@dataclass(frozen=True, slots=True)
class SignalTest:
    """Somebody else's finding, published to ``signals``."""

    source: str
    """A pattern."""
    trip_only: bool
    """Whether a signal of level WARN is not enough."""


@dataclass(frozen=True, slots=True)
class ObjectiveTest:
    """`fuseboard_detectors.objectives`: is a share as good as it should be, over a window?"""

    shares: tuple[tuple[int, int], ...]
    """The share of bad events that must not be reached, as a ratio of whole numbers: one, or one for each of two
    percentiles, which must both hold."""
    window_us: int
    minimum: int
    least: tuple[int, ...] = ()
    """Of what has a cost, for each of the shares: what costs so much or more is bad, micro-dollars."""
    grace_us: int = 0
    """How long after its request a session's first event may come."""
    error: float = 0.05
    """One minus the confidence."""


Test: TypeAlias = (
    FailureTest
    | DistinctTest
    | BurnTest
    | CapTest
    | RunsTest
    | ExceedTest
    | FirstUseTest
    | SilenceTest
    | LostTest
    | UngatedTest
    | SignalTest
    | ObjectiveTest
)


# --- rules


@dataclass(frozen=True, slots=True)
class Match:
    """Which targets: all whose names fit every pattern (``*`` any characters, ``?`` any one)."""

    tenant: str = "*"
    actor: str = "*"
    tool: str = "*"

    @property
    def everything(self) -> bool:
        """Whether every target fits."""
        return self.tenant == self.actor == self.tool == "*"


@dataclass(frozen=True, slots=True)
class Variant:
    """A rule as it is for some of its targets."""

    test: Test
    response: Response


@dataclass(frozen=True, slots=True)
class Breadth:
    """For how many actors a tool must fail before it is the tool's fault."""

    actors: int
    share: tuple[int, int]
    max_per_actor: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule on the targets of one scope: a rule of the file with two scopes is two of these."""

    rule: str
    metric: str
    scope: Scope
    match: Match
    base: Variant
    """The rule as it is written."""
    changed: tuple[tuple[tuple[Match, ...], Variant], ...] = ()
    """Where overrides make it another: the last whose matches all fit a target wins. For overrides that overlap there
    is an entry with the matches of all of them."""
    breadth: Breadth | None = None


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """How many actors of a tenant automatic statistical trips may hold at a time."""

    share: tuple[int, int] = (1, 10)
    at_least: int = 1
    window_us: int = 60 * _SECOND
    exempt: frozenset[str] = frozenset({"critical", "hard-cap", "session", "manual"})


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Everything that a rules file says to the core."""

    version: str
    """Content hash of the text."""
    rules: tuple[Rule, ...]
    """In the order of the file, a rule's scopes in the order in which it names them."""
    blast_radius: BlastRadius | None = None
    """None: automatic trips of actors ask nobody."""
    objectives: tuple[Rule, ...] = ()
    """What is measured and never trips: rules with an `ObjectiveTest`, in the order of the file. An evaluation is
    tested once per run and not in the stream: it is not among them."""
