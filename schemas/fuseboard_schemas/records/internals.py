"""What the workers write about their own work."""

# Generated from avsc/*.avsc by `python -m fuseboard_schemas.generate`; do not edit.
from dataclasses import dataclass

from fuseboard_schemas.records.enums import (
    AuditKind,
    DeadLetterReason,
    StateKind,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NearTrip:
    """A target that is on its way to a trip."""

    tenant: str
    """Tenant of the actor."""
    actor: str | None = None
    """The actor; null for a tool as a whole."""
    tool: str | None = None
    """The tool; null for an actor as a whole."""
    evidence_log10: float
    """log10 of its evidence, rounded to 6 digits."""
    trip_log10: float
    """log10 of the level at which it trips."""
    calls: int
    """Counted calls since its evidence last rested."""
    failures: int
    """Failures among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRange:
    """A half-open range of offsets that a transaction consumed of one input."""

    topic: str
    """Input topic, without the prefix."""
    from_offset: int
    """First offset of the range."""
    next_offset: int
    """Offset to continue from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """What one actor did with one tool in one minute of event time; upsert by tenant, actor, tool and minute."""

    tenant: str
    """Tenant of the actor."""
    actor: str
    """The actor."""
    tool: str
    """The tool."""
    minute: int
    """Start of the minute, microseconds since 1970-01-01 UTC."""
    revision: int = 0
    """Grows with every amendment of the row."""
    calls: int = 0
    """Attempts, refusals included."""
    ok: int = 0
    """Attempts that succeeded."""
    errors: int = 0
    """Attempts that failed."""
    timeouts: int = 0
    """Attempts that ran out of time."""
    denied_policy: int = 0
    """Refusals by policy."""
    denied_breaker: int = 0
    """Refusals by a breaker."""
    denied_other: int = 0
    """Refusals for want of approval or budget."""
    cancelled: int = 0
    """Attempts that were cancelled."""
    probes: int = 0
    """Attempts that were probes."""
    retries: int = 0
    """Attempts after the first."""
    writes: int = 0
    """Attempts that were not READ."""
    cost_usd_micros: int = 0
    """Sum of costs in micro-dollars."""
    amount_usd_micros: int = 0
    """Sum of amounts moved in micro-dollars."""
    duration_count: int = 0
    """Attempts with a known duration."""
    duration_sum_ms: int = 0
    """Sum of known durations in milliseconds."""
    duration_bins: tuple[int, ...] = ()
    """Occupied bins of the logarithmic histogram of durations, ascending."""
    duration_counts: tuple[int, ...] = ()
    """Attempts in each of these bins."""
    traces: int = 0
    """Distinct traces."""
    traces_exact: bool = True
    """False when the number of traces is an estimate."""
    late: int = 0
    """Attempts that came after the row was first sent."""
    late_dropped: int = 0
    """Older attempts that arrived in this minute and amend no row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One link of the audit chain.

    It holds a decision, transition, override or acknowledgement with the bytes it was made of.
    """

    chain: str
    """Which chain it belongs to; one per shard."""
    sequence: int
    """Position in the chain, from 0."""
    previous_hash: str
    """Hash of the link before it; 64 zeros for the first."""
    hash: str
    """SHA-256 over the previous hash and all other fields, as hex."""
    ts: int
    """Event time, microseconds since 1970-01-01 UTC."""
    kind: AuditKind
    """What it is about."""
    tenant: str
    """Tenant concerned."""
    actor: str | None = None
    """Actor concerned."""
    subject: str
    """Breaker, rule or event it is about."""
    summary: str
    """What happened, in one line."""
    person: str | None = None
    """Who did it, if a person did."""
    event_id: str | None = None
    """The event that decided."""
    trace_id: str | None = None
    """Trace of that event."""
    source_topic: str | None = None
    """Topic of the record it was made from."""
    source_partition: int | None = None
    """Partition of that record."""
    source_offset: int | None = None
    """Offset of that record."""
    payload: bytes | None = None
    """The record itself, in the wire format."""
    payload_sha256: str | None = None
    """SHA-256 of the payload, as hex."""
    rules_version: str | None = None
    """Content hash of the rules in force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """A shard's owner is alive, and how far it has come; one per shard and second, also when idle."""

    worker_id: str
    """The worker that owns the shard."""
    group: str
    """Its consumer group."""
    shard: int
    """The shard: a partition number."""
    ts: int
    """Wall clock of the worker, microseconds since 1970-01-01 UTC."""
    stream_time: int
    """Stream time of the shard; 0 when it has seen nothing."""
    lag_s: float
    """How far the shard is behind the end of its inputs, in seconds."""
    version: str
    """Version of Fuseboard."""
    rules_version: str
    """Content hash of the rules in force."""
    nearest: tuple[NearTrip, ...] = ()
    """The few targets of the shard that are nearest to a trip for failing, the nearest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A record that could not be used, where it came from, and why."""

    topic: str
    """Topic it was read from."""
    partition: int
    """Partition it was read from."""
    offset: int
    """Its offset there."""
    arrival: int
    """When the broker took it, microseconds since 1970-01-01 UTC."""
    reason: DeadLetterReason
    """Why it could not be used."""
    detail: str
    """What was wrong, in one line."""
    key: bytes | None = None
    """Its key."""
    payload: bytes | None = None
    """Its value, cut if it is very long; null for a tombstone."""
    payload_length: int
    """Length of the uncut value in bytes."""
    payload_sha256: str
    """SHA-256 of the uncut value, as hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRecord:
    """One chunk of a transaction's entry in a shard's state log: changed rows, checkpoint slice and journal."""

    format: int
    """Version of the block's layout."""
    shard: int
    """The shard: a partition number."""
    writer: str
    """Transactional id of the writer, unique per process start; a successor fences it under this id."""
    sequence: int
    """Number of the entry in the shard's log, the same for its chunks."""
    chunk: int
    """Number of this chunk, from 0."""
    chunks: int
    """How many chunks the entry has."""
    kind: StateKind
    """What the entry is."""
    restore_from: int
    """Offset in the state topic at which the last committed complete round begins."""
    starts_round: bool
    """Whether a checkpoint round begins with this entry."""
    ends_round: bool
    """Whether a checkpoint round ends with this entry."""
    stream_time: int
    """Stream time of the shard after the entry, microseconds; 0 when it has seen nothing."""
    advanced_us: int
    """How far the wall clock advanced stream time in this entry, microseconds."""
    rules_version: str
    """Content hash of the rules that were used."""
    inputs: tuple[InputRange, ...]
    """Offsets of every input, also of those without records in this transaction."""
    block: bytes
    """The rows, as one columnar block."""
