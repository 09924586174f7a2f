"""What a rules file may hold, and the forms of its values. What its parts mean together is checked in ``check.py``."""

from __future__ import annotations

import difflib
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fuseboard_streams.rules.catalogue import BREAKER_METRICS, OBJECTIVE_METRICS, SIGNAL_METRIC, Measure, Metric
from fuseboard_streams.rules.quantities import BurnWindow, Target, burn_window, duration_us, micro_usd, share, target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_DURATION: Final = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
_SHARE: Final = r"^[0-9]+(\.[0-9]+)?%$"


def _text(pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


def _metric(known: Mapping[str, Metric | Measure], pattern: str | None = None, about: str = "") -> WithJsonSchema:
    forms = [{"const": name, "description": each.about} for name, each in known.items()]
    return WithJsonSchema({"anyOf": forms + ([{"pattern": pattern, "description": about}] if pattern else [])})


Duration: TypeAlias = Annotated[int, PlainValidator(duration_us), _text(_DURATION, "30s", "5m", "1h30m", "7d")]
"""Microseconds."""
Share: TypeAlias = Annotated[
    Fraction,
    PlainValidator(share),
    PlainSerializer(float, return_type=float),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _SHARE}, {"type": "number", "minimum": 0, "maximum": 1}]}),
]
"""A fraction of one."""
MicroUsd: TypeAlias = Annotated[
    int, PlainValidator(micro_usd), WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 1e9})
]
"""Written in dollars."""
TargetText: TypeAlias = Annotated[
    Target, PlainValidator(target), _text(r"^(>=|<=|>|<)\s*[-+]?[0-9]+(\.[0-9]+)?\s*%?$", ">99.5%", "<0.02")
]
WindowText: TypeAlias = Annotated[
    BurnWindow, PlainValidator(burn_window), _text(r"^[0-9.]+%?/[0-9a-z.]+/[0-9a-z.]+$", "5%/5m/30s")
]
Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
"""Of a rule or an objective: lower-case letters, digits and hyphens."""
BoundedText: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Pattern: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""With * and ? for any characters and any one."""
_MANY: Final = 1_000_000_000
"""Counts are kept in four bytes, and compared with these."""
ModeName: TypeAlias = Literal["shadow", "warn", "enforce"]
SeverityName: TypeAlias = Literal["info", "ticket", "page", "critical"]
ScopeName: TypeAlias = Literal["ACTOR", "ACTOR_TOOL", "TOOL", "TENANT", "SESSION"]
ActionName: TypeAlias = Literal["FAST_MODEL_ONLY", "REQUIRE_APPROVAL", "READ_ONLY", "DISABLE_TOOL", "HALT"]
RecoveryName: TypeAlias = Literal["probe", "clear", "window", "person"]


_ONE_OR_MORE: Final = WithJsonSchema(
    {
        "anyOf": [
            {"enum": list(get_args(ScopeName))},
            {"type": "array", "items": {"enum": list(get_args(ScopeName))}, "minItems": 1},
        ]
    }
)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _several(given: object) -> object:
    """One word for a list of one."""
    return (given,) if isinstance(given, str) else given


class Part(BaseModel):
    """Any part of a rules file: what is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, given: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        if not isinstance(given, dict):
            raise PydanticCustomError("no_table", "expected a table with {known}", {"known": _listed(cls.model_fields)})
        for key in given:
            if key not in cls.model_fields:
                close = difflib.get_close_matches(key, cls.model_fields, 1)
                hint = f"did you mean {close[0]}?" if close else f"those there are: {_listed(cls.model_fields)}."
                context = {"key": key, "hint": hint}
                raise PydanticCustomError("unknown_field", "there is no such field here; {hint}", context)
        return given


# --- tests


class Baseline(Part):
    """What is normal for a key."""

    floor: Share = Fraction(1, 200)
    """The null is never below this rate."""
    quantile: Share = Fraction(99, 100)
    """The null is this quantile of the rate's posterior."""
    known: Share | None = None
    """A rate that is known and not learned."""


class EDetector(Part):
    """Has a rate become higher than its baseline? Call by call, with a bound on false trips."""

    kind: Literal["e-detector"]
    """Which test it is."""
    baseline: Baseline = Baseline()
    """What is normal for a key."""
    max_failures_per_trace: Annotated[int, Field(ge=1, le=31)] = 3
    """Of one trace, within five minutes, no more failures are counted: one stuck agent is no outage."""
    warn: Annotated[float, Field(gt=1)] = 1e4
    """Suspect from this evidence on: it is said, and nothing is learned."""
    trip: Annotated[float, Field(gt=1)] | None = None
    """At most one false trip per so many events; 1e6 where it is left out."""


class Distinct(Part):
    """Hits in so many distinct traces among the last so many actions."""

    kind: Literal["distinct"]
    """Which test it is."""
    traces: Annotated[int, Field(ge=1, le=8)]
    """Hits in so many distinct traces ..."""
    of_last: Annotated[int, Field(ge=1, le=10_000)] = 100
    """... among so many of the actor's last actions ..."""
    within: Duration = 86_400_000_000
    """... none of them longer ago than this."""
    severities: tuple[SeverityName, ...] = ()
    """Severities of the decisions that count; all where it is left out."""


class Budget(Part):
    """How much may be spent in how long."""

    usd: MicroUsd
    """Dollars."""
    per: Duration = 86_400_000_000
    """The time that the budget is for."""


class Burn(Part):
    """A budget that is being spent too fast, over pairs of windows."""

    kind: Literal["burn"]
    """Which test it is."""
    budget: Budget
    """What may be spent."""
    windows: Annotated[tuple[WindowText, ...], Field(min_length=1, max_length=5)]
    """Share of the budget / long window / short window: it burns while that share was spent within the long one and, at
    the same rate, within the short one."""


class Cap(Part):
    """A hard limit on one event, or on a day by UTC."""

    kind: Literal["cap"]
    """Which test it is."""
    usd: MicroUsd
    """Dollars."""
    per: Literal["event", "day"]
    """One call or step, or a day by UTC."""


class Exceed(Part):
    """Has a value gone above a bin's edge near its reference quantile more often than it used to?"""

    kind: Literal["exceed"]
    """Which test it is."""
    quantile: Share = Fraction(95, 100)
    """Of the key's own first observations: how often it is exceeded is what is tested."""
    reference: Annotated[int, Field(ge=100, le=50_000)] = 1_000
    """Observations that make the reference."""
    warn: Annotated[float, Field(gt=1)] = 1e4
    """Suspect from this evidence on: it is said, and nothing is learned."""
    trip: Annotated[float, Field(gt=1)] | None = None
    """At most one false trip per so many events; 1e6 where it is left out."""


class Runs(Part):
    """A session that is stuck: so many failures, or so many identical calls, in a row."""

    kind: Literal["runs"]
    """Which test it is."""
    failures: Annotated[int, Field(ge=2, le=254)] = 8
    """So many failed calls in a row ..."""
    identical: Annotated[int, Field(ge=2, le=254)] = 5
    """... or so many calls in a row of one tool with the same arguments."""
    polling: tuple[Pattern, ...] = ()
    """Tools that may repeat a call."""


class FirstUse(Part):
    """The first call of a tool by an actor that has made so many calls already."""

    kind: Literal["first-use"]
    """Which test it is."""
    after: Annotated[int, Field(ge=0, le=_MANY)] = 200
    """So many calls the actor must have made before."""


class Silence(Part):
    """Sessions are requested, and nothing is heard."""

    kind: Literal["silence"]
    """Which test it is."""
    requests: Annotated[int, Field(ge=1, le=_MANY)] = 5
    """At least so many sessions were requested ..."""
    lasting: Duration = 300_000_000
    """... and no event came for so long."""


class Lost(Part):
    """Sequence numbers are missing."""

    kind: Literal["lost"]
    """Which test it is."""
    share: Share = Fraction(1, 100)
    """Of the numbered events this share is missing ..."""
    within: Duration = 3_600_000_000
    """... within this time ..."""
    min: Annotated[int, Field(ge=1, le=_MANY)] = 100
    """... of at least so many."""


class Ungated(Part):
    """A call was executed although its target had been open for so long."""

    kind: Literal["ungated"]
    """Which test it is."""
    after: Duration = 5_000_000
    """How long after the command a call may still be executed."""


class FromSignal(Part):
    """Somebody else's finding: a signal of this level on the topic ``signals``."""

    kind: Literal["signal"]
    """Which test it is."""
    source: Pattern = "*"
    """Who published it, a pattern."""
    level: Literal["warn", "trip"] = "trip"
    """The least level that counts."""


Test: TypeAlias = Annotated[
    EDetector | Distinct | Burn | Cap | Exceed | Runs | FirstUse | Silence | Lost | Ungated | FromSignal,
    Discriminator("kind"),
]


# --- rules


class Match(Part):
    """Which targets a rule or an override is for: all that fit every pattern given."""

    tenant: Pattern = "*"
    """With * for any characters and ? for any one, as the others."""
    actor: Pattern = "*"
    """Name of the actor."""
    tool: Pattern = "*"
    """Name of the tool."""


class Breadth(Part):
    """How many actors a tool must fail for before it is the tool's fault."""

    actors: Annotated[int, Field(ge=2, le=1_000_000)] = 3
    """At least so many actors ..."""
    share: Share = Fraction(1, 5)
    """... and this share of those that called the tool lately."""
    max_per_actor: Annotated[int, Field(ge=1, le=1_000_000)] = 3
    """Of one actor no more failures are counted in a second."""


class Rung(Part):
    """One step of a ladder."""

    action: ActionName
    """What is restricted."""
    after: Duration | None = None
    """When the step before has held for so long; left out: when the test fires again."""
    severity: SeverityName | None = None
    """How urgently a person is needed."""


class RecoveryRule(Part):
    """What lets a target in again."""

    by: RecoveryName
    """Clean probes, the condition gone, the window over, or a person."""
    cooldown: Duration = 30_000_000
    """For ``probe``: until the first probes; it doubles at every reopening ..."""
    max_cooldown: Duration = 300_000_000
    """... up to this."""
    probes: Annotated[int, Field(ge=1, le=40)] = 10
    """For ``probe``: probe calls of a wave."""
    quiet: Duration = 300_000_000
    """For ``clear``: how long the condition must have been gone."""


class BreakerRule(Part):
    """What trips, on what, and what follows."""

    metric: Annotated[BoundedText, _metric(BREAKER_METRICS, r"^signals\..", SIGNAL_METRIC.about)]
    """What it is about."""
    scope: Annotated[tuple[ScopeName, ...], BeforeValidator(_several), Field(min_length=1), _ONE_OR_MORE]
    """What is cut off: one or several kinds of target."""
    test: Test
    """What makes it trip."""
    match: Match = Match()
    """Which targets; all where it is left out."""
    action: ActionName | None = None
    """What is restricted while it is open; or ``ladder``."""
    ladder: Annotated[tuple[Rung, ...], Field(min_length=1, max_length=5)] | None = None
    """Several actions, each containing the one before; or ``action``."""
    mode: ModeName | None = None
    """``shadow`` records, ``warn`` alerts too, ``enforce`` trips."""
    severity: SeverityName | None = None
    """How urgently a person is needed."""
    recovery: RecoveryRule | None = None
    """What lets the target in again."""
    breadth: Breadth | None = None
    """For scope ``TOOL``: when it is the tool's fault."""
    runbook: BoundedText | None = None
    """What to read when it trips."""


def _form_of_goal(given: object) -> str:
    return "quantiles" if isinstance(given, dict) else "one"


Goal: TypeAlias = Annotated[
    Annotated[TargetText, Tag("one")]
    | Annotated[dict[Literal["p50", "p95"], TargetText], Field(min_length=1), Tag("quantiles")],
    Discriminator(_form_of_goal),
]
"""One target, or one for each quantile named."""


class Objective(Part):
    """How good something should be; it alerts, and never trips."""

    metric: Annotated[BoundedText, _metric(OBJECTIVE_METRICS)]
    """What is measured."""
    per: ScopeName
    """For each of what."""
    target: Goal
    """What it should be."""
    window: Duration | None = None
    """Over how long."""
    min: Annotated[int, Field(ge=1, le=_MANY)] | None = None
    """With fewer observations nothing is said."""
    grace: Duration | None = None
    """How long after its request a session's first event may come; 10 minutes where it is left out."""
    suites: tuple[Pattern, ...] = ()
    """Patterns of the suites that count."""
    confidence: Share = Fraction(95, 100)
    """Met or violated is said with this confidence, one-sided."""
    severity: SeverityName | None = None
    """How urgently a person is needed."""


class Defaults(Part):
    """What holds for every rule that does not say otherwise."""

    mode: ModeName = "shadow"
    """``shadow`` records, ``warn`` alerts too, ``enforce`` trips."""
    severity: SeverityName = "ticket"
    """How urgently a person is needed; what is ``critical`` waits for one."""
    runbook: BoundedText = "docs/runbooks/{id}.md"
    """What to read when it trips; {id} is the rule's name."""


class FalseTrips(Part):
    """How many false trips the whole file may cause."""

    per_day: Annotated[float, Field(gt=0)]
    """Over all targets together."""


class BlastRadius(Part):
    """How many actors automatic, statistical trips may hold at a time."""

    tenant_actors: Share = Fraction(1, 10)
    """Of the tenant's actors that were active in the last hour this share may be held ..."""
    at_least: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """... but always so many."""
    window: Duration = 60_000_000
    """Within this time no more than that are added."""
    exempt: tuple[Literal["critical", "hard-cap", "session", "manual"], ...] = (
        "critical", "hard-cap", "session", "manual",
    )  # fmt: skip
    """What is not counted and not held back."""


class Override(Part):
    """Other values for some targets: by rule or objective, the fields that differ."""

    match: Match
    """For which targets."""
    set: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    """The fields that differ, by rule or objective."""


def _no_truth(given: object) -> object:
    """To Python, true is 1."""
    return "true" if given is True else given


class RulesFile(Part):
    """A whole rules file."""

    version: Annotated[Literal[1], BeforeValidator(_no_truth)]
    """Of this form."""
    defaults: Defaults = Defaults()
    """Where a rule does not say otherwise."""
    false_trips: FalseTrips | None = None
    """For levels that no rule names."""
    objectives: dict[Name, Objective] = Field(default_factory=dict)
    """How good things should be."""
    breakers: dict[Name, BreakerRule] = Field(default_factory=dict)
    """What trips."""
    blast_radius: BlastRadius = BlastRadius()
    """How much may be held at a time."""
    overrides: tuple[Override, ...] = ()
    """Other values for some targets; the later one wins."""
