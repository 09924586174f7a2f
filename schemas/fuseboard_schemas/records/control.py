"""Findings, rules, breakers, and what people and enforcers say to them."""

# Generated from avsc/*.avsc by `python -m fuseboard_schemas.generate`; do not edit.
from dataclasses import dataclass

from fuseboard_schemas.records.enums import (
    Action,
    AlertAction,
    BreakerState,
    Cause,
    Mode,
    ModelAccess,
    OverrideKind,
    PaneKind,
    Recovery,
    RunAccess,
    Scope,
    Severity,
    SignalLevel,
    ToolAccess,
    WriteAccess,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One rule's grip on a breaker; each is released by its own recovery."""

    rule: str
    """Rule that holds."""
    action: Action
    """What it asks for."""
    since: int
    """Since when it holds."""
    recovery: Recovery
    """What releases it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A finding about a target, with its evidence. Anyone may publish signals; rules treat them as their own."""

    signal_id: str
    """Unique id of this signal."""
    ts: int
    """Event time of the finding, microseconds since 1970-01-01 UTC."""
    client_id: int = 0
    """64 random bits per process start of the publisher; 0 when it has none."""
    seq: int | None = None
    """Counter per client; null is never deduplicated."""
    source: str
    """Detector or program that found it."""
    tenant: str
    """Tenant of the target."""
    scope: Scope
    """What kind of target it is about."""
    actor: str | None = None
    """Actor of the target; null for TOOL and TENANT."""
    tool: str | None = None
    """Tool of the target; null for ACTOR, TENANT and SESSION."""
    trace_id: str | None = None
    """Trace of the target; only for SESSION."""
    rule: str | None = None
    """Rule that the finding belongs to."""
    level: SignalLevel
    """How strong the finding is."""
    metric: str
    """What was measured, for example calls.failed."""
    value: float | None = None
    """The measured value."""
    evidence_log10: float | None = None
    """log10 of the test statistic, rounded to 6 digits."""
    null_p0: float | None = None
    """Failure probability that the test takes for normal."""
    calls: int | None = None
    """Calls counted since the statistic was last reset."""
    failures: int | None = None
    """Failures counted since the statistic was last reset."""
    since: int | None = None
    """Estimated onset or start of the evidence."""
    event_id: str | None = None
    """The event that decided."""
    reason: str | None = None
    """The finding in one line, for people."""
    rules_version: str | None = None
    """Content hash of the rules in force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The text of a rules file as it was applied; all workers run the same version."""

    tenant: str = "default"
    """Tenant that the rules are for."""
    ts: int
    """When they were applied, microseconds since 1970-01-01 UTC."""
    version: str
    """Content hash of the text."""
    previous_version: str | None = None
    """Content hash of the rules that these replace."""
    text: str
    """The rules file itself."""
    applied_by: str
    """The person or system that applied them."""
    reason: str | None = None
    """Why, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """An order that a person gives for a breaker."""

    override_id: str
    """Unique id of this order."""
    ts: int
    """When it was given, microseconds since 1970-01-01 UTC."""
    client_id: int = 0
    """64 random bits per process start of the publisher; 0 when it has none."""
    seq: int | None = None
    """Counter per client; null is never deduplicated."""
    tenant: str
    """Tenant of the target."""
    scope: Scope
    """What kind of target it is about."""
    actor: str | None = None
    """Actor of the target; null for TOOL and TENANT."""
    tool: str | None = None
    """Tool of the target; null for ACTOR, TENANT and SESSION."""
    trace_id: str | None = None
    """Trace of the target; only for SESSION."""
    kind: OverrideKind
    """What is ordered."""
    action: Action = Action.NONE
    """What to enforce, for TRIP and HOLD; NONE leaves it to the rule."""
    rule: str | None = None
    """Only the hold of this rule; null for the whole breaker."""
    epoch: int | None = None
    """Epoch of the command that the person saw; an order about an older one is refused."""
    person: str
    """Who gives the order."""
    reason: str
    """Why."""
    expires_at: int | None = None
    """When the order ends by itself; null for never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pane:
    """What shards tell each other about a tool or a tenant: sums, requests and answers, a breaker's state."""

    tenant: str
    """Tenant that the sums are about."""
    tool: str | None = None
    """Tool that the sums are about; null for the whole tenant."""
    kind: PaneKind
    """What the pane carries."""
    ts: int
    """The second that a pane is about, or the stream time of what it tells, microseconds since 1970-01-01 UTC."""
    source_shard: int
    """Shard that sends it."""
    from_offset: int
    """First offset of the shard's tool-calls that the pane covers; 0 where it covers none."""
    next_offset: int
    """Offset after the last one that it covers; 0 where it covers none."""
    calls: int = 0
    """Counted calls."""
    failures: int = 0
    """Counted failures, at most 3 per actor."""
    actors: int = 0
    """Of a tool: actors that called it in the last 10 minutes. Of a tenant: actors with an event in the last hour."""
    cost_usd_micros: int = 0
    """Sum of costs in micro-dollars."""
    rule: str | None = None
    """Rule that asks, or whose hold it is about."""
    actor: str | None = None
    """Actor that a request, its answer or its end is about; in sums of a tenant, one that holds with leave or asks."""
    evidence_log10: float | None = None
    """Evidence behind a trip request, rounded to 6 digits."""
    event_id: str | None = None
    """The event that decided, for a trip request."""
    rules_version: str
    """Content hash of the rules in force."""
    sequence: int = 0
    """Grows by one with every pane from one shard to one partition but markers, which repeat the last one; from 1."""
    breaker_epoch: int | None = None
    """Epoch under which a probe was admitted, or of the breaker whose state is told."""
    open: bool = False
    """Of a state: whether the tool's breaker owns the blame. In sums of a tenant: whether the actor is held."""
    since: int | None = None
    """Estimated onset of the failures that opened it, microseconds since 1970-01-01 UTC; null: it takes none over."""
    results: int = 0
    """Calls that ended with OK, ERROR or TIMEOUT, probes left out, whether they count for the tool or not."""
    results_bad: int = 0
    """Of these, those that did not end with OK, all of every actor."""
    actors_failing: tuple[int, ...] = ()
    """Actors for which it failed, as hashes of their names, ascending; twice where it failed more than once."""
    refuses: bool = False
    """Whether the tool's own breaker lets no call pass but probes, for a state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerCommand:
    """The whole state of a breaker after a transition.

    Enforcers obey the four axes and ignore an epoch older than the one they know.
    """

    breaker_id: str
    """Scope and target, for example ACTOR_TOOL:default/support_agent_v4/billing.refund."""
    epoch: int
    """Grows with every command of this breaker."""
    ts: int
    """Event time of the transition, microseconds since 1970-01-01 UTC."""
    tenant: str
    """Tenant of the target."""
    scope: Scope
    """What the breaker stands for."""
    actor: str | None = None
    """Actor of the target; null for TOOL and TENANT."""
    tool: str | None = None
    """Tool of the target; null for ACTOR, TENANT and SESSION."""
    trace_id: str | None = None
    """Trace of the target; only for SESSION."""
    state: BreakerState
    """State after the transition."""
    action: Action
    """The hardest thing asked for, for people to read."""
    model: ModelAccess
    """Which models may be called."""
    writes: WriteAccess
    """What becomes of calls that are not READ."""
    tool_access: ToolAccess
    """Whether the tool may be called."""
    run: RunAccess
    """Whether the target may run."""
    mode: Mode
    """Only ENFORCE is to be obeyed."""
    severity: Severity
    """How urgently a person is needed."""
    cause: Cause
    """Why the breaker changed."""
    reason: str
    """Why, in one line, for people."""
    rule: str
    """Rule that caused the transition."""
    rules_version: str
    """Content hash of the rules in force."""
    runbook: str | None = None
    """What to read when it trips."""
    since: int
    """When the breaker left CLOSED, or was closed."""
    retry_at: int | None = None
    """When the next probes are to be admitted."""
    cooldown_ms: int | None = None
    """Length of the present cooldown in milliseconds, jitter included."""
    reopenings: int = 0
    """How often it reopened since it left CLOSED."""
    wave: int = 0
    """Number of the present wave of probes; 0 outside HALF_OPEN."""
    probe_quota: int = 0
    """Probes that each enforcer may admit in this wave."""
    probes_ok: int = 0
    """Probes that succeeded since it became HALF_OPEN."""
    probes_failed: int = 0
    """Probes that failed since it became HALF_OPEN."""
    evidence_log10: float | None = None
    """log10 of the deciding statistic, rounded to 6 digits."""
    null_p0: float | None = None
    """Failure probability that the test took for normal."""
    calls_seen: int | None = None
    """Calls in the evidence."""
    failures_seen: int | None = None
    """Failures in the evidence."""
    evidence_since: int | None = None
    """Start of the evidence."""
    event_id: str | None = None
    """The event that decided."""
    source_offset: int | None = None
    """Offset of that event in its topic's partition of the same number."""
    holds: tuple[Hold, ...] = ()
    """All holds, in the order in which they came."""
    person: str | None = None
    """Who ordered it, if a person did."""
    expires_at: int | None = None
    """When an order of a person ends by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnforcementAck:
    """An enforcer has applied one epoch of a breaker."""

    breaker_id: str
    """The breaker."""
    epoch: int
    """The epoch that was applied."""
    state: BreakerState
    """Its state."""
    tenant: str
    """Tenant of the breaker's target."""
    actor: str | None = None
    """Actor on whose behalf the enforcer applied it."""
    client_id: int
    """The enforcer's process: 64 random bits per process start."""
    enforcer: str
    """What applied it, for example sdk/0.1.0 or kill-switch."""
    ts: int
    """When it was applied, microseconds since 1970-01-01 UTC."""
    command_ts: int
    """The ts of the command."""
    seq: int | None = None
    """Counter per client; null is never deduplicated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What a person should hear about; the newest record per key is the state of the alert."""

    dedup_key: str
    """Identity of the alert in pagers."""
    ts: int
    """Event time, microseconds since 1970-01-01 UTC."""
    alert_action: AlertAction
    """What a pager should do."""
    severity: Severity
    """How urgently a person is needed."""
    source: str
    """What raised it."""
    summary: str
    """The alert in one line, at most 1,024 characters."""
    tenant: str
    """Tenant of the target."""
    scope: Scope
    """What kind of target it is about."""
    actor: str | None = None
    """Actor of the target; null for TOOL and TENANT."""
    tool: str | None = None
    """Tool of the target; null for ACTOR, TENANT and SESSION."""
    trace_id: str | None = None
    """Trace of the target; only for SESSION."""
    rule: str | None = None
    """Rule that raised it."""
    breaker_id: str | None = None
    """Breaker it is about."""
    epoch: int | None = None
    """Epoch of that breaker."""
    since: int | None = None
    """When the condition began."""
    runbook: str | None = None
    """What to read."""
    details: str | None = None
    """More, as JSON text."""
    person: str | None = None
    """Who acknowledged or resolved it."""
    rules_version: str | None = None
    """Content hash of the rules in force."""
