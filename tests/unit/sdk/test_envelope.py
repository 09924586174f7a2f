"""Messages as they go out: key, headers, value."""

from __future__ import annotations

import pytest

from fuseboard.envelope import Enveloper, RecordEvent, headers, rfc3339
from fuseboard.transport import BY_KEY
from fuseboard_schemas.codec import Decoder, Encoder
from fuseboard_schemas.records import BreakerState, EnforcementAck, StepKind, TraceStep
from fuseboard_schemas.topics import TopicNames

TS = 1_790_000_000_123_456
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def enveloper() -> Enveloper:
    return Enveloper(TopicNames("p."), Encoder)


def test_a_record_of_an_actor(enveloper: Enveloper) -> None:
    record = TraceStep(
        event_id="e-1", ts=TS, tenant="acme", actor="a/b", kind=StepKind.PLAN, trace_id=TRACE, span_id=SPAN
    )
    message = enveloper.wrap(record)
    assert message.topic == "p.traces"
    assert message.partition == BY_KEY
    assert message.key == b"acme/a%2Fb"
    assert Decoder().decode(message.value, "TraceStep") == record
    assert message.headers == (
        ("ce_id", b"e-1"),
        ("ce_type", b"fuseboard.v1.TraceStep"),
        ("ce_source", b"/fuseboard/acme/a%2Fb"),
        ("ce_specversion", b"1.0"),
        ("ce_time", b"2026-09-21T14:13:20.123456Z"),
        ("content-type", b"application/avro"),
        ("traceparent", f"00-{TRACE}-{SPAN}-01".encode()),
    )


def test_an_acknowledgement_goes_to_the_partition_it_is_told(enveloper: Enveloper) -> None:
    record = EnforcementAck(
        breaker_id="TOOL:default/refund",
        epoch=9,
        state=BreakerState.OPEN,
        tenant="default",
        client_id=-1,
        enforcer="sdk/1",
        ts=TS,
        command_ts=TS,
        seq=0,
    )
    message = enveloper.wrap(record, 3)
    assert (message.topic, message.partition, message.key) == ("p.enforcement-acks", 3, b"TOOL:default/refund")
    assert dict(message.headers)["ce_id"] == b"ffffffffffffffff:9:TOOL:default/refund"
    assert "traceparent" not in dict(message.headers)


def test_an_event_gets_client_number_and_id_when_it_is_built() -> None:
    event = RecordEvent(TraceStep(event_id="", ts=TS, actor="a", kind=StepKind.PLAN))
    built = event.build(5, 7, lambda: "new")
    assert isinstance(built, TraceStep)
    assert (built.client_id, built.seq, built.event_id) == (5, 7, "new")


def test_headers_without_a_span_have_no_traceparent() -> None:
    assert "traceparent" not in dict(headers("ToolCall", "e", "/s", TS, TRACE, None))


@pytest.mark.parametrize(
    ("ts", "text"),
    [(0, "1970-01-01T00:00:00.000000Z"), (1, "1970-01-01T00:00:00.000001Z"), (TS, "2026-09-21T14:13:20.123456Z")],
)
def test_times(ts: int, text: str) -> None:
    assert rfc3339(ts) == text
