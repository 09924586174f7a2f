"""Enumerations of the records."""

# Generated from avsc/*.avsc by `python -m fuseboard_schemas.generate`; do not edit.
from enum import StrEnum


class Action(StrEnum):
    """What a rule asks for, mild to hard.

    Enforcers obey the four axes of the command instead; an unknown symbol reads as HALT.
    """

    NONE = "NONE"
    FAST_MODEL_ONLY = "FAST_MODEL_ONLY"
    REQUIRE_APPROVAL = "REQUIRE_APPROVAL"
    READ_ONLY = "READ_ONLY"
    DISABLE_TOOL = "DISABLE_TOOL"
    HALT = "HALT"


class AlertAction(StrEnum):
    """What a pager should do with an alert."""

    TRIGGER = "TRIGGER"
    ACKNOWLEDGE = "ACKNOWLEDGE"
    RESOLVE = "RESOLVE"
    OTHER = "OTHER"


class AuditKind(StrEnum):
    """What an audit record is about."""

    DECISION = "DECISION"
    TRANSITION = "TRANSITION"
    OVERRIDE = "OVERRIDE"
    ACKNOWLEDGEMENT = "ACKNOWLEDGEMENT"
    RULES = "RULES"
    ALERT = "ALERT"
    OTHER = "OTHER"


class BreakerState(StrEnum):
    """The state of a breaker; the FORCED states are set by a person.

    An unknown symbol reads as OPEN, so that nothing fails open by accident.
    """

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"
    FORCED_OPEN = "FORCED_OPEN"
    FORCED_CLOSED = "FORCED_CLOSED"


class Cause(StrEnum):
    """Why a breaker changed."""

    TRIP = "TRIP"
    COOLDOWN_OVER = "COOLDOWN_OVER"
    NEXT_WAVE = "NEXT_WAVE"
    PROBES_PASSED = "PROBES_PASSED"
    PROBES_FAILED = "PROBES_FAILED"
    PROBES_UNDECIDED = "PROBES_UNDECIDED"
    NO_PROBES = "NO_PROBES"
    OVERRIDE = "OVERRIDE"
    EXPIRED = "EXPIRED"
    ATTRIBUTED = "ATTRIBUTED"
    RULE_REMOVED = "RULE_REMOVED"
    CONDITION_CLEARED = "CONDITION_CLEARED"
    OTHER = "OTHER"


class DeadLetterReason(StrEnum):
    """Why a record could not be used."""

    UNDECODABLE = "UNDECODABLE"
    NOT_WIRE_FORMAT = "NOT_WIRE_FORMAT"
    UNKNOWN_SCHEMA = "UNKNOWN_SCHEMA"
    WRONG_RECORD = "WRONG_RECORD"
    TOMBSTONE = "TOMBSTONE"
    INVALID_FIELD = "INVALID_FIELD"
    ANCIENT = "ANCIENT"
    MISPLACED = "MISPLACED"
    TOO_LARGE = "TOO_LARGE"
    KEY_LIMIT = "KEY_LIMIT"
    OTHER = "OTHER"


class Decision(StrEnum):
    """A policy engine's verdict. An unknown symbol reads as REQUIRE_APPROVAL: neither a permission nor a violation."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    REQUIRE_APPROVAL = "REQUIRE_APPROVAL"


class DeniedBy(StrEnum):
    """Who refused a call that was DENIED; NONE for every other outcome."""

    NONE = "NONE"
    POLICY = "POLICY"
    BREAKER = "BREAKER"
    APPROVAL = "APPROVAL"
    BUDGET = "BUDGET"


class Effect(StrEnum):
    """What a tool does to the world.

    An unknown symbol reads as IRREVERSIBLE, so such a call is never used as a probe.
    """

    READ = "READ"
    WRITE = "WRITE"
    IRREVERSIBLE = "IRREVERSIBLE"


class EvalArm(StrEnum):
    """Which side of a paired evaluation a result belongs to."""

    CANDIDATE = "CANDIDATE"
    BASELINE = "BASELINE"
    OTHER = "OTHER"


class GraderKind(StrEnum):
    """Who or what gave the score."""

    EXACT = "EXACT"
    CODE = "CODE"
    MODEL = "MODEL"
    HUMAN = "HUMAN"
    OTHER = "OTHER"


class Mode(StrEnum):
    """How far a rule goes: SHADOW records, WARN alerts, ENFORCE trips."""

    SHADOW = "SHADOW"
    WARN = "WARN"
    ENFORCE = "ENFORCE"


class ModelAccess(StrEnum):
    """Axis of enforcement: which models may be called."""

    ANY = "ANY"
    FAST_ONLY = "FAST_ONLY"


class Outcome(StrEnum):
    """How an attempt ended. An unknown symbol reads as CANCELLED, which counts neither as success nor as failure."""

    OK = "OK"
    ERROR = "ERROR"
    TIMEOUT = "TIMEOUT"
    DENIED = "DENIED"
    CANCELLED = "CANCELLED"


class OverrideKind(StrEnum):
    """What a person orders for a breaker."""

    TRIP = "TRIP"
    RESET = "RESET"
    HOLD = "HOLD"
    BYPASS = "BYPASS"
    ACKNOWLEDGE = "ACKNOWLEDGE"
    APPROVE = "APPROVE"
    OTHER = "OTHER"


class PaneKind(StrEnum):
    """What a pane carries.

    SUMS: counts; MARKER: the shard has passed this second; TRIP_REQUEST: asks the tenant's owner for leave to trip an
    actor; PROBED: the result of a probe call of a tool's breaker; RELEASED: an actor that was granted is free again;
    GRANTED, REFUSED: the owner's answer to a request; TOOL_STATE: whether a tool's own breaker is open.
    """

    SUMS = "SUMS"
    MARKER = "MARKER"
    TRIP_REQUEST = "TRIP_REQUEST"
    OTHER = "OTHER"
    PROBED = "PROBED"
    RELEASED = "RELEASED"
    GRANTED = "GRANTED"
    REFUSED = "REFUSED"
    TOOL_STATE = "TOOL_STATE"


class Recovery(StrEnum):
    """What releases a hold.

    PROBE: clean probes; CLEAR: the condition is gone; WINDOW: it rolls over; PERSON: someone decides. An unknown symbol
    reads as PERSON.
    """

    PROBE = "PROBE"
    CLEAR = "CLEAR"
    WINDOW = "WINDOW"
    PERSON = "PERSON"


class RouteTier(StrEnum):
    """The model tier a router chose."""

    NONE = "NONE"
    FAST = "FAST"
    SLOW = "SLOW"


class RunAccess(StrEnum):
    """Axis of enforcement: whether the target may run at all."""

    ON = "ON"
    HALT = "HALT"


class Scope(StrEnum):
    """What a breaker stands for.

    ACTOR: one agent; ACTOR_TOOL: its use of one tool; TOOL: a tool in the whole tenant; SESSION: one trace.
    """

    ACTOR = "ACTOR"
    ACTOR_TOOL = "ACTOR_TOOL"
    TOOL = "TOOL"
    TENANT = "TENANT"
    SESSION = "SESSION"
    OTHER = "OTHER"


class ScoreKind(StrEnum):
    """Whether scores are 0 or 1, or graded."""

    BINARY = "BINARY"
    GRADED = "GRADED"


class Severity(StrEnum):
    """How urgently a person is needed; CRITICAL waits for a person to close."""

    INFO = "INFO"
    TICKET = "TICKET"
    PAGE = "PAGE"
    CRITICAL = "CRITICAL"


class SignalLevel(StrEnum):
    """How strong a finding is: INFO is recorded, WARN alerts, TRIP asks for the breaker to open."""

    INFO = "INFO"
    WARN = "WARN"
    TRIP = "TRIP"


class StateKind(StrEnum):
    """What a state record is.

    CLAIM: a new owner announces itself; DELTA: changed rows, a slice of the rolling checkpoint and the journal. A
    reader that meets another kind must stop.
    """

    CLAIM = "CLAIM"
    DELTA = "DELTA"
    OTHER = "OTHER"


class StepKind(StrEnum):
    """What a step of a trace is."""

    SESSION_START = "SESSION_START"
    SESSION_END = "SESSION_END"
    LLM_CALL = "LLM_CALL"
    RETRIEVAL = "RETRIEVAL"
    MODEL_ROUTE = "MODEL_ROUTE"
    PLAN = "PLAN"
    HAND_OFF = "HAND_OFF"
    WARNING = "WARNING"
    OTHER = "OTHER"


class TaskResult(StrEnum):
    """How a task ended."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    ABANDONED = "ABANDONED"
    ESCALATED = "ESCALATED"
    UNKNOWN = "UNKNOWN"


class ToolAccess(StrEnum):
    """Axis of enforcement: whether the tool may be called at all."""

    ON = "ON"
    OFF = "OFF"


class WriteAccess(StrEnum):
    """Axis of enforcement: what becomes of calls that are not READ."""

    FREE = "FREE"
    APPROVAL = "APPROVAL"
    REFUSED = "REFUSED"
