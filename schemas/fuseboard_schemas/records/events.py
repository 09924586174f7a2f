"""What agents publish."""

# Generated from avsc/*.avsc by `python -m fuseboard_schemas.generate`; do not edit.
from dataclasses import dataclass

from fuseboard_schemas.records.enums import (
    Decision,
    DeniedBy,
    Effect,
    EvalArm,
    GraderKind,
    Mode,
    Outcome,
    RouteTier,
    ScoreKind,
    Severity,
    StepKind,
    TaskResult,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One attempt at one tool, published when it ends; refusals included."""

    event_id: str
    """Unique id of this event, chosen by its producer."""
    ts: int
    """End of the call, microseconds since 1970-01-01 UTC."""
    tenant: str = "default"
    """The organisation or environment that the actor belongs to."""
    actor: str
    """One agent deployment, for example support_agent_v4."""
    client_id: int = 0
    """64 random bits per process start and per fork of the producer; 0 when the producer has none."""
    seq: int | None = None
    """Counter per client, actor and topic: a gap is a lost event, a repeat is a duplicate; null is never deduplicated.

    """
    trace_id: str | None = None
    """W3C trace id, 32 lower-case hex digits; one task is one trace."""
    span_id: str | None = None
    """W3C span id, 16 lower-case hex digits."""
    session_id: str | None = None
    """Conversation or session, gen_ai.conversation.id in OpenTelemetry."""
    task_id: str | None = None
    """Task within the session."""
    intent: str | None = None
    """What the agent was trying to do, as a short label."""
    tool: str
    """Name of the tool, gen_ai.tool.name in OpenTelemetry, for example billing.refund."""
    effect: Effect = Effect.IRREVERSIBLE
    """What the tool does to the world."""
    outcome: Outcome
    """How the attempt ended."""
    denied_by: DeniedBy = DeniedBy.NONE
    """Who refused the call, if it was DENIED."""
    error_type: str | None = None
    """Class of the error, error.type in OpenTelemetry; never its message."""
    duration_ms: int | None = None
    """Duration of the attempt in milliseconds."""
    cost_usd_micros: int | None = None
    """What the attempt cost, in micro-dollars."""
    amount_usd_micros: int | None = None
    """The amount of money it moved, in micro-dollars."""
    attempt: int = 1
    """1 for the first attempt, 2 for its first retry, and so on."""
    idempotency_key: str | None = None
    """The same for all attempts of one logical call."""
    compensates: str | None = None
    """Idempotency key of the call that this one undoes."""
    probe: bool = False
    """Admitted, or refused, by a half-open breaker as a probe."""
    args_hash: str | None = None
    """Hash of the arguments, to recognise repetition without keeping them."""
    gate_breaker: str | None = None
    """Id of the breaker that admitted the probe or refused the call."""
    gate_epoch: int | None = None
    """Epoch of that breaker as the gate knew it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStep:
    """A step of a trace that is not a tool call.

    It may be a session's start or end, a model call, retrieval, route, plan or hand-off.
    """

    event_id: str
    """Unique id of this event, chosen by its producer."""
    ts: int
    """End of the step, microseconds since 1970-01-01 UTC."""
    tenant: str = "default"
    """The organisation or environment that the actor belongs to."""
    actor: str
    """One agent deployment, for example support_agent_v4."""
    client_id: int = 0
    """64 random bits per process start and per fork of the producer; 0 when the producer has none."""
    seq: int | None = None
    """Counter per client, actor and topic: a gap is a lost event, a repeat is a duplicate; null is never deduplicated.

    """
    trace_id: str | None = None
    """W3C trace id, 32 lower-case hex digits; one task is one trace."""
    span_id: str | None = None
    """W3C span id, 16 lower-case hex digits."""
    session_id: str | None = None
    """Conversation or session, gen_ai.conversation.id in OpenTelemetry."""
    task_id: str | None = None
    """Task within the session."""
    kind: StepKind
    """What the step is."""
    provider: str | None = None
    """Model provider, gen_ai.provider.name in OpenTelemetry."""
    model: str | None = None
    """Model that answered, gen_ai.response.model in OpenTelemetry."""
    route_tier: RouteTier = RouteTier.NONE
    """The model tier the router chose."""
    tokens_in: int | None = None
    """Tokens sent, gen_ai.usage.input_tokens in OpenTelemetry."""
    tokens_out: int | None = None
    """Tokens received, gen_ai.usage.output_tokens in OpenTelemetry."""
    cost_usd_micros: int | None = None
    """What the step cost, in micro-dollars."""
    duration_ms: int | None = None
    """Duration of the step in milliseconds."""
    outcome: Outcome = Outcome.OK
    """How the step ended."""
    error_type: str | None = None
    """Class of the error, error.type in OpenTelemetry; never its message."""
    source: str | None = None
    """Where retrieved data came from."""
    source_age_s: float | None = None
    """Age of the retrieved data in seconds."""
    summary: str | None = None
    """Redacted one-line summary; never a prompt or a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDecision:
    """A policy engine's verdict on one action."""

    event_id: str
    """Unique id of this event, chosen by its producer."""
    ts: int
    """When the decision was taken, microseconds since 1970-01-01 UTC."""
    tenant: str = "default"
    """The organisation or environment that the actor belongs to."""
    actor: str
    """One agent deployment, for example support_agent_v4."""
    client_id: int = 0
    """64 random bits per process start and per fork of the producer; 0 when the producer has none."""
    seq: int | None = None
    """Counter per client, actor and topic: a gap is a lost event, a repeat is a duplicate; null is never deduplicated.

    """
    trace_id: str | None = None
    """W3C trace id, 32 lower-case hex digits; one task is one trace."""
    span_id: str | None = None
    """W3C span id, 16 lower-case hex digits."""
    session_id: str | None = None
    """Conversation or session, gen_ai.conversation.id in OpenTelemetry."""
    task_id: str | None = None
    """Task within the session."""
    decision: Decision
    """The verdict."""
    rule: str
    """Id of the policy rule that decided."""
    reason: str | None = None
    """Why, in one line."""
    policy_version: str | None = None
    """Version or hash of the policy."""
    mode: Mode = Mode.ENFORCE
    """Whether the verdict was in effect (ENFORCE) or only recorded."""
    severity: Severity = Severity.TICKET
    """How serious a DENY is."""
    tool: str | None = None
    """The tool the action concerns."""
    effect: Effect = Effect.IRREVERSIBLE
    """What that tool does to the world."""
    engine: str | None = None
    """The policy engine that decided."""
    approver: str | None = None
    """Who approved, if approval was required and given."""
    confidence: float | None = None
    """Probability the engine gives its own verdict, for classifiers."""
    duration_ms: int | None = None
    """How long the decision took in milliseconds."""
    args_hash: str | None = None
    """Hash of the arguments of the action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOutcome:
    """How a task ended, published once per task."""

    event_id: str
    """Unique id of this event, chosen by its producer."""
    ts: int
    """End of the task, microseconds since 1970-01-01 UTC."""
    tenant: str = "default"
    """The organisation or environment that the actor belongs to."""
    actor: str
    """One agent deployment, for example support_agent_v4."""
    client_id: int = 0
    """64 random bits per process start and per fork of the producer; 0 when the producer has none."""
    seq: int | None = None
    """Counter per client, actor and topic: a gap is a lost event, a repeat is a duplicate; null is never deduplicated.

    """
    trace_id: str | None = None
    """W3C trace id, 32 lower-case hex digits; one task is one trace."""
    span_id: str | None = None
    """W3C span id, 16 lower-case hex digits."""
    session_id: str | None = None
    """Conversation or session, gen_ai.conversation.id in OpenTelemetry."""
    task_id: str | None = None
    """Task within the session."""
    result: TaskResult
    """How the task ended."""
    user_override: bool = False
    """A person undid or redid what the agent had done."""
    override_reason: str | None = None
    """Why, as a short label."""
    task_type: str | None = None
    """Kind of task, as a short label."""
    score: float | None = None
    """Quality of the result from 0 to 1, if something measured it."""
    cost_usd_micros: int | None = None
    """Cost of the whole task in micro-dollars; used only where its parts are not known."""
    tokens_in: int | None = None
    """Tokens sent during the task."""
    tokens_out: int | None = None
    """Tokens received during the task."""
    time_to_first_action_ms: int | None = None
    """From the request to the first tool call, in milliseconds."""
    duration_ms: int | None = None
    """Duration of the task in milliseconds."""
    tool_calls: int | None = None
    """Tool calls made, retries included."""
    model_calls: int | None = None
    """Model calls made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """One line of the router's own request log, against which the coverage of traces is measured."""

    event_id: str
    """Unique id of this event, chosen by its producer."""
    ts: int
    """When the router took the request, microseconds since 1970-01-01 UTC."""
    tenant: str = "default"
    """The organisation or environment that the actor belongs to."""
    actor: str
    """One agent deployment, for example support_agent_v4."""
    client_id: int = 0
    """64 random bits per process start and per fork of the producer; 0 when the producer has none."""
    seq: int | None = None
    """Counter per client, actor and topic: a gap is a lost event, a repeat is a duplicate; null is never deduplicated.

    """
    trace_id: str | None = None
    """W3C trace id, 32 lower-case hex digits; one task is one trace."""
    span_id: str | None = None
    """W3C span id, 16 lower-case hex digits."""
    session_id: str
    """The session that was routed; coverage asks whether any event shows it."""
    task_id: str | None = None
    """Task within the session."""
    request_id: str | None = None
    """The router's own id of the request."""
    router: str | None = None
    """Which router or gateway logged it."""
    route: str | None = None
    """The route or endpoint that was asked for."""
    channel: str | None = None
    """Where the request came from: web, voice, api."""
    accepted: bool = True
    """Whether the request was passed on to the agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """The score of one case in one trial of an evaluation run."""

    event_id: str
    """Unique id of this event, chosen by its producer."""
    ts: int
    """When the case was graded, microseconds since 1970-01-01 UTC."""
    tenant: str = "default"
    """The organisation or environment that the actor belongs to."""
    actor: str
    """One agent deployment, for example support_agent_v4."""
    client_id: int = 0
    """64 random bits per process start and per fork of the producer; 0 when the producer has none."""
    seq: int | None = None
    """Counter per client, actor and topic: a gap is a lost event, a repeat is a duplicate; null is never deduplicated.

    """
    trace_id: str | None = None
    """W3C trace id, 32 lower-case hex digits; one task is one trace."""
    span_id: str | None = None
    """W3C span id, 16 lower-case hex digits."""
    session_id: str | None = None
    """Conversation or session, gen_ai.conversation.id in OpenTelemetry."""
    task_id: str | None = None
    """Task within the session."""
    run_id: str
    """Evaluation run; a run is judged once, when complete."""
    suite: str
    """Evaluation suite."""
    case_id: str
    """Case within the suite; the unit of the paired test."""
    trial: int = 0
    """Repetition of the case, counted from 0; trials are averaged."""
    cases_expected: int
    """How many cases a complete run has."""
    arm: EvalArm
    """Whether the score is the candidate's or the baseline's."""
    candidate: str
    """Version under test."""
    baseline: str
    """Version it is compared with."""
    grader_kind: GraderKind = GraderKind.OTHER
    """Who or what gave the score."""
    grader: str | None = None
    """Name and version of the grader."""
    score_kind: ScoreKind = ScoreKind.GRADED
    """Whether scores are 0 or 1, or graded."""
    score: float
    """The score, gen_ai.evaluation.score.value in OpenTelemetry."""
    label: str | None = None
    """The score as a word, gen_ai.evaluation.score.label in OpenTelemetry."""
    key_suite: bool = False
    """Whether a regression of this suite may act."""
    higher_is_better: bool = True
    """Direction of the score."""
    cost_usd_micros: int | None = None
    """Cost of the case in micro-dollars."""
    duration_ms: int | None = None
    """Duration of the case in milliseconds."""
