"""What rules can be about: the metrics, the tests that fit them, and which action and recovery fit which target.

One table of each, from which the checks, ``fuseboard rules explain``, the JSON Schema and ``docs/rules.md`` are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

SCOPES: Final = ("ACTOR_TOOL", "ACTOR", "TOOL", "TENANT", "SESSION")
TARGET_PARTS: Final = {
    "ACTOR_TOOL": ("tenant", "actor", "tool"),
    "ACTOR": ("tenant", "actor"),
    "TOOL": ("tenant", "tool"),
    "TENANT": ("tenant",),
    "SESSION": ("tenant", "actor"),
}
"""The names that a target of each scope has, for patterns to match."""
ACTIONS: Final = {
    "ACTOR_TOOL": ("REQUIRE_APPROVAL", "DISABLE_TOOL"),
    "ACTOR": ("FAST_MODEL_ONLY", "REQUIRE_APPROVAL", "READ_ONLY", "HALT"),
    "TOOL": ("REQUIRE_APPROVAL", "DISABLE_TOOL"),
    "TENANT": ("FAST_MODEL_ONLY", "REQUIRE_APPROVAL", "READ_ONLY", "HALT"),
    "SESSION": ("FAST_MODEL_ONLY", "REQUIRE_APPROVAL", "READ_ONLY", "HALT"),
}
"""The actions that fit each scope, mild to hard."""
SESSION_RECOVERIES: Final = ("window", "person")
"""A session's hold goes with the session, an hour after it was made at the latest."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Something that breakers can be about."""

    about: str
    """One sentence."""
    tests: dict[str, tuple[str, ...]]
    """The kinds of test that fit it, and what may release a hold of each; the first is the default."""
    scopes: tuple[str, ...]
    refused: dict[str, str]
    """Scopes that one might expect, and why they are not there."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that objectives can be about."""

    about: str
    """One sentence."""
    scopes: tuple[str, ...]
    form: Literal["share", "difference", "usd"]
    """What a target is: a share of one, a difference of two shares, or dollars for each quantile named."""
    upwards: bool
    """Whether more is better."""
    windowed: bool = True
    """Whether it is measured over a ``window`` with at least ``min`` observations."""


_PROBE: Final = ("probe", "person")
_CLEAR: Final = ("clear", "person")
_WINDOW: Final = ("window", "person")
_PERSON: Final = ("person",)
_NO_TENANT: Final = "every actor of a tenant would share one statistic, which this version does not keep; use ACTOR"

BREAKER_METRICS: Final = {
    "calls.failed": Metric(
        "A call ended with ERROR or TIMEOUT; a call ends well with OK, and any other outcome counts neither way.",
        {"e-detector": _PROBE},
        ("ACTOR_TOOL", "ACTOR", "TOOL"),
        {"TENANT": _NO_TENANT},
    ),
    "actions.violating": Metric(
        "A tool call for which a policy in effect decided DENY; shadow denials and required approvals do not count.",
        {"distinct": _PERSON, "e-detector": _PERSON},
        ("ACTOR",),
        {"TENANT": _NO_TENANT, "ACTOR_TOOL": "a violation is its actor's; use ACTOR"},
    ),
    "spend.usd": Metric(
        "What an actor's trace steps and tool calls cost together.",
        {"burn": _CLEAR, "cap": _WINDOW},
        ("ACTOR",),
        {"TENANT": "what a tenant spends is not summed in this version; give each ACTOR a part of the budget"},
    ),
    "calls.latency": Metric(
        "A call took longer than this tool's reference quantile for this actor.",
        {"exceed": _PROBE},
        ("ACTOR_TOOL",),
        {},
    ),
    "calls.cost_usd": Metric(
        "A call cost more than this tool's reference quantile for this actor.",
        {"exceed": _PROBE},
        ("ACTOR_TOOL",),
        {},
    ),
    "calls.repeated": Metric(
        "Calls of one trace that fail, or are identical, one after the other.",
        {"runs": _WINDOW},
        ("SESSION",),
        {"ACTOR": "a stuck session is not its actor's fault; use SESSION"},
    ),
    "tools.first_use": Metric(
        "An actor that has made many calls calls a tool for the first time.",
        {"first-use": _PERSON},
        ("ACTOR_TOOL",),
        {"ACTOR": "the tool is what is new; use ACTOR_TOOL"},
    ),
    "events.silent": Metric(
        "Sessions of an actor are requested, and none of its events arrives.",
        {"silence": _CLEAR},
        ("ACTOR",),
        {},
    ),
    "events.lost": Metric(
        "Sequence numbers of an actor's events are missing.",
        {"lost": _CLEAR},
        ("ACTOR",),
        {},
    ),
    "calls.ungated": Metric(
        "A call was executed although its target had been open for longer than an agent needs to hear of it.",
        {"ungated": _PERSON},
        ("ACTOR", "ACTOR_TOOL"),
        {},
    ),
}
"""Metrics of breakers by name, but for ``signals.*``."""
SIGNALS: Final = "signals."
SIGNAL_METRIC: Final = Metric(
    "A signal with this metric, without `signals.`, that somebody else published to the topic `signals`.",
    {"signal": _PERSON},
    SCOPES,
    {},
)
"""What every metric is that begins with ``signals.``."""

OBJECTIVE_METRICS: Final = {
    "sessions.traced": Measure(
        "Share of the requested sessions of which any event arrives within `grace` (10 minutes).", ("ACTOR",), "share",
        upwards=True,
    ),
    "calls.ok": Measure(
        "Share of the calls that end with OK, of those that end with OK, ERROR or TIMEOUT.",
        ("ACTOR_TOOL", "ACTOR", "TOOL"), "share", upwards=True,
    ),
    "actions.violating": Measure(
        "Share of the tool calls for which a policy in effect decided DENY.", ("ACTOR",), "share", upwards=False
    ),
    "evals.paired_delta": Measure(
        "Difference of candidate and baseline in an evaluation, case by case, in each of the `suites` named.",
        ("ACTOR",), "difference", upwards=True, windowed=False,
    ),
    "tasks.cost_usd": Measure(
        "What a task costs: the sum of its trace steps and tool calls.", ("ACTOR",), "usd", upwards=False
    ),
}  # fmt: skip
"""Metrics of objectives by name."""


def breaker_metric(name: str) -> Metric | None:
    """What a metric of breakers is; None for one that is not known."""
    if name.startswith(SIGNALS) and len(name) > len(SIGNALS):
        return SIGNAL_METRIC
    return BREAKER_METRICS.get(name)


def recoveries(metric: Metric, kind: str, scope: str) -> tuple[str, ...]:
    """What may release a hold of a rule, the default first."""
    return SESSION_RECOVERIES if scope == "SESSION" else metric.tests[kind]
