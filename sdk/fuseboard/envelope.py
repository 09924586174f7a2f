"""From a record to a Kafka message: Avro value, CloudEvents and W3C headers, key."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from fuseboard.transport import BY_KEY, Message
from fuseboard_schemas.keys import actor_key
from fuseboard_schemas.records import (
    EnforcementAck,
    EvalResult,
    PolicyDecision,
    SessionRequest,
    TaskOutcome,
    ToolCall,
    TraceStep,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_schemas.codec import Encoder
    from fuseboard_schemas.topics import TopicNames

CONTENT_TYPE = ("content-type", b"application/avro")
SPEC_VERSION = ("ce_specversion", b"1.0")

ActorRecord = ToolCall | TraceStep | PolicyDecision | TaskOutcome | SessionRequest | EvalResult
"""The records that an agent publishes about itself, keyed ``tenant/actor``."""
Publishable = ActorRecord | EnforcementAck

TOPIC_OF: dict[type[Publishable], str] = {
    ToolCall: "tool_calls",
    TraceStep: "traces",
    PolicyDecision: "policy_decisions",
    TaskOutcome: "tasks",
    SessionRequest: "session_requests",
    EvalResult: "eval_results",
    EnforcementAck: "enforcement_acks",
}
"""The attribute of :class:`fuseboard_schemas.topics.TopicNames` that names a record's topic."""

Counter = tuple[str, str, str]
"""What a sequence number counts for one client: tenant, actor, topic attribute."""


class Event(Protocol):
    """Something to publish, cheap to make on the agent's thread; the record is built on the publisher's."""

    @property
    def counter(self) -> Counter:
        """Which sequence numbers the event uses up."""
        ...

    @property
    def partition(self) -> int:
        """Where to write it, or ``BY_KEY``."""
        ...

    def build(self, client_id: int, seq: int, new_id: Callable[[], str]) -> Publishable:
        """The finished record."""
        ...


@dataclass(frozen=True, slots=True)
class RecordEvent:
    """An event whose record exists already, except for the client's id and the sequence number."""

    record: Publishable
    partition: int = BY_KEY

    @property
    def counter(self) -> Counter:
        """See :class:`Event`; acknowledgements are counted per client."""
        if isinstance(self.record, EnforcementAck):
            return ("", "", TOPIC_OF[EnforcementAck])
        return (self.record.tenant, self.record.actor, TOPIC_OF[type(self.record)])

    def build(self, client_id: int, seq: int, new_id: Callable[[], str]) -> Publishable:
        """See :class:`Event`."""
        if isinstance(self.record, EnforcementAck):
            return replace(self.record, client_id=client_id, seq=seq)
        return replace(self.record, client_id=client_id, seq=seq, event_id=self.record.event_id or new_id())


class Enveloper:
    """Encodes records into messages. Not thread-safe: the publisher's thread owns it.

    Args:
        topics: Full topic names.
        encoder_for: Makes the encoder of a record by its name; each is made once.
    """

    def __init__(self, topics: TopicNames, encoder_for: Callable[[str], Encoder]) -> None:
        self._topics = {kind: str(getattr(topics, attribute)) for kind, attribute in TOPIC_OF.items()}
        self._encoder_for = encoder_for
        self._encoders: dict[type[Publishable], Encoder] = {}
        self._sources: dict[tuple[str, str], tuple[bytes, tuple[str, bytes]]] = {}

    def wrap(self, record: Publishable, partition: int = BY_KEY) -> Message:
        """Encode one record.

        Raises:
            Exception: The record has a value that its schema does not allow.
        """
        kind = type(record)
        encoder = self._encoders.get(kind)
        if encoder is None:
            encoder = self._encoders[kind] = self._encoder_for(kind.__name__)
        value = encoder.encode(record)
        if isinstance(record, EnforcementAck):
            event_id = f"{record.client_id & 0xFFFF_FFFF_FFFF_FFFF:016x}:{record.epoch}:{record.breaker_id}"
            return Message(
                self._topics[kind],
                partition,
                record.breaker_id.encode(),
                value,
                headers(kind.__name__, event_id, f"/fuseboard/{record.enforcer}", record.ts),
            )
        key, source = self._key_and_source(record.tenant, record.actor)
        return Message(
            self._topics[kind],
            partition,
            key,
            value,
            _with_source(kind.__name__, record.event_id, source, record.ts, record.trace_id, record.span_id),
        )

    def _key_and_source(self, tenant: str, actor: str) -> tuple[bytes, tuple[str, bytes]]:
        found = self._sources.get((tenant, actor))
        if found is None:
            key = actor_key(tenant, actor)
            found = key.encode(), ("ce_source", f"/fuseboard/{key}".encode())
            self._sources[tenant, actor] = found
        return found


def headers(
    record: str, event_id: str, source: str, ts: int, trace_id: str | None = None, span_id: str | None = None
) -> tuple[tuple[str, bytes], ...]:
    """The headers every producer sets: CloudEvents 1.0 in Kafka's binary mode, and W3C ``traceparent``.

    Args:
        record: Name of the record, for example ``ToolCall``.
        event_id: Unique together with ``source``.
        source: URI reference of the producer.
        ts: The record's time, microseconds since 1970-01-01 UTC.
        trace_id: W3C trace id, 32 hex digits.
        span_id: W3C span id, 16 hex digits; without it there is no ``traceparent``.
    """
    return _with_source(record, event_id, ("ce_source", source.encode()), ts, trace_id, span_id)


def _with_source(
    record: str, event_id: str, source: tuple[str, bytes], ts: int, trace_id: str | None, span_id: str | None
) -> tuple[tuple[str, bytes], ...]:
    common = (
        ("ce_id", event_id.encode()),
        ("ce_type", f"fuseboard.v1.{record}".encode()),
        source,
        SPEC_VERSION,
        ("ce_time", rfc3339(ts).encode()),
        CONTENT_TYPE,
    )
    if trace_id is None or span_id is None:
        return common
    return (*common, ("traceparent", f"00-{trace_id}-{span_id}-01".encode()))


def rfc3339(ts: int) -> str:
    """Microseconds since 1970 as RFC 3339 with six decimals, in UTC."""
    seconds, micros = divmod(ts, 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{micros:06d}Z"
