"""From lines to messages: kinds, identity, time, partitions; and every way a line can be wrong."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseboard.guest import signal_record, to_message
from fuseboard_schemas.codec import Decoder
from fuseboard_schemas.errors import ConfigurationError
from fuseboard_schemas.jsonform import to_json
from fuseboard_schemas.keys import KeyFormatError, actor_key, partition_for
from fuseboard_schemas.records import Scope, Signal, SignalLevel
from fuseboard_schemas.topics import TopicNames
from fuseboard_streams.cli.publishing import ADDRESS_ERRORS, Addresser, Assembler, Pacer, Prepared, Rebase, find_record
from fuseboard_streams.records_io import Line, Problem, read_lines
from tests.cli.samples import BREAKER, NOW, SECOND, ack, call, command

CLIENT = 0x1234
NAMES = TopicNames("x.")


def line(number: int = 1, **fields: Any) -> Line:
    return Line(number, 100, {"ts": NOW, "actor": "a", "tool": "t", "outcome": "OK", **fields})


def assembler(record: str | None = "ToolCall", **options: Any) -> Assembler:
    return Assembler("f.jsonl", record, CLIENT, **options)


def prepared(item: Prepared | Problem) -> Prepared:
    assert isinstance(item, Prepared), item
    return item


def problem(item: Prepared | Problem) -> Problem:
    assert isinstance(item, Problem), item
    return item


@pytest.mark.parametrize("name", ["tool-calls", "tool_calls", "ToolCall", "fuseboard.v1.ToolCall"])
def test_a_kind_has_several_names(name: str) -> None:
    assert find_record(name) == "ToolCall"
    assert prepared(assembler(None).prepare(line(record=name))).topic.name == "tool-calls"
    assert prepared(assembler(None).prepare(line(type=name))).topic.name == "tool-calls"


def test_what_workers_write_cannot_be_published() -> None:
    with pytest.raises(ConfigurationError, match=r"written by workers only.*tool-calls"):
        find_record("breaker-commands")
    with pytest.raises(ConfigurationError, match=r"no record"):
        find_record("toolcalls")


def test_every_actor_has_its_own_sequence_and_all_one_client() -> None:
    made = assembler()
    records = [prepared(made.prepare(line(i, actor=actor))).record for i, actor in enumerate("aabab")]
    assert [(r.actor, r.seq) for r in records] == [("a", 0), ("a", 1), ("b", 0), ("a", 2), ("b", 1)]
    assert {r.client_id for r in records} == {CLIENT}
    assert len({r.event_id for r in records}) == 5


def test_ids_of_the_file_are_kept_on_request() -> None:
    fields = {"event_id": "mine", "client_id": "00000000000000ff", "seq": 41}
    assert prepared(assembler().prepare(line(**fields))).record.seq == 0
    kept = prepared(assembler(keep_ids=True).prepare(line(**fields))).record
    assert (kept.event_id, kept.client_id, kept.seq) == ("mine", 255, 41)
    assert prepared(assembler(keep_ids=True).prepare(line())).record.seq is None


def test_the_file_is_not_shifted_unless_asked() -> None:
    item = prepared(assembler().prepare(line(), lambda ts: ts + SECOND))
    assert (item.record.ts, item.file_ts) == (NOW + SECOND, NOW)


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"outcome": "EROR"}, "outcome", "Did you mean ERROR?"),
        ({"outcome": None}, "outcome", "expected one of"),
        ({"actor": 5}, "actor", "expected a string"),
        ({"toll": "x"}, "toll", "did you mean `tool`?"),
        ({"ts": 1_795_406_400}, "ts", "looks like seconds"),
        ({"ts": "2026-11-23T04:00:00"}, "ts", "no time zone"),
        ({"ts": -5}, "ts", "not before 2000"),
        ({"seq": 1 << 70}, "seq", "64 bits"),
        ({"cost_usd": "a lot"}, "cost_usd", "dollars"),
        ({"record": "signals"}, "record", "as --record says"),
        ({"record": "nonsense"}, "record", "no record"),
        ({"record": 7}, "record", "no record"),
        ({"tool": "\ud800"}, "tool", "valid Unicode"),
        ({"actor": ""}, "actor", "is empty"),
        ({"tool": "a\0b"}, "tool", "NUL"),
        ({"tenant": "é" * 129}, "tenant", "longer than 256 bytes"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(changes: dict[str, Any], field: str, text: str) -> None:
    found = problem(assembler().prepare(line(12, **changes)))
    assert (found.source, found.line, found.field) == ("f.jsonl", 12, field)
    assert text in found.detail
    assert str(found).startswith("f.jsonl:12: ")


@pytest.mark.parametrize(
    ("record", "fields", "field", "text"),
    [
        ("Signal", {"scope": "ACTOR"}, "actor", "field `actor` is missing: expected a string, as the scope is ACTOR."),
        ("Signal", {"scope": "ACTOR_TOOL", "actor": "a"}, "tool", "field `tool` is missing: expected a string, as the"),
        ("Signal", {"scope": "SESSION", "actor": "a"}, "trace_id", "as the scope is SESSION."),
        ("EnforcementAck", {"breaker_id": "x"}, "breaker_id", "field `breaker_id`: 'x' is no breaker id"),
    ],
)
def test_a_record_about_a_breaker_names_one(record: str, fields: dict[str, Any], field: str, text: str) -> None:
    common: dict[str, dict[str, Any]] = {
        "Signal": {"source": "me", "level": "WARN", "metric": "m"},
        "EnforcementAck": {
            "epoch": 1,
            "state": "OPEN",
            "actor": "a",
            "enforcer": "e",
            "command_ts": NOW,
            "client_id": 5,
        },
    }
    values = {"ts": NOW, "tenant": "default", **common[record], **fields}
    found = problem(assembler(record).prepare(Line(3, 1, values)))
    assert found.field == field
    assert text in found.detail


def test_names_are_refused_in_the_same_words_as_other_fields() -> None:
    found = problem(assembler().prepare(line(actor="")))
    assert found.detail == "field `actor` is empty: expected 1 to 256 bytes."


@pytest.mark.parametrize(
    ("name", "meant"),
    [("tool-call", "tool-calls"), ("toolcall", "ToolCall"), ("Tool_Calls", "tool-calls"), ("override", "Override")],
)
def test_a_kind_that_is_meant_is_suggested(name: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Did you mean {meant}"):
        find_record(name)


@pytest.mark.parametrize("extra", [{"tombstone": True}, {"undecodable": {"reason": "UNDECODABLE"}}])
def test_what_tap_shows_for_no_record_is_named_as_such(extra: dict[str, Any]) -> None:
    tapped = Line(1, 1, {"record": "ToolCall", **extra, "kafka": {"offset": 5}})
    assert "no readable record" in problem(assembler(None).prepare(tapped)).detail


def test_a_missing_field_is_named() -> None:
    found = problem(assembler().prepare(Line(3, 1, {"ts": NOW, "tool": "t", "outcome": "OK"})))
    assert found.field == "actor"


def test_a_line_without_a_kind_says_how_to_name_it() -> None:
    found = problem(assembler(None).prepare(line()))
    assert found.field == "record"
    assert "--record" in found.detail


def test_what_tap_prints_can_be_published() -> None:
    original = call(client_id=-5, seq=9)
    shown = json.loads(json.dumps({"record": "ToolCall", **to_json(original), "kafka": {"offset": 1}}))
    assert prepared(assembler(None, keep_ids=True).prepare(Line(1, 1, shown))).record == original


def test_messages_go_to_the_partition_of_their_actor() -> None:
    addresser = Addresser(NAMES, lambda _: 7)
    item = prepared(assembler().prepare(line(actor="a/b", trace_id="1" * 32, span_id="2" * 16)))
    message = addresser.address(item)
    assert message.topic == "x.tool-calls"
    assert message.key == b"default/a%2Fb"
    assert message.partition == partition_for(actor_key("default", "a/b"), 7)
    assert Decoder().decode(message.value, "ToolCall") == item.record
    assert ("traceparent", f"00-{'1' * 32}-{'2' * 16}-01".encode()) in message.headers
    assert dict(message.headers)["ce_type"] == b"fuseboard.v1.ToolCall"


def test_signals_and_acknowledgements_go_to_the_home_of_their_target() -> None:
    addresser = Addresser(NAMES, lambda _: 7)
    home = partition_for("default/support_agent_v4", 7)
    signal = Signal(
        signal_id="s",
        ts=NOW,
        source="judge",
        tenant="default",
        scope=Scope.ACTOR_TOOL,
        actor="support_agent_v4",
        tool="get_reservation_details",
        level=SignalLevel.WARN,
        metric="toxicity",
    )
    for record in (signal, ack()):
        item = prepared(assembler(None).prepare(Line(1, 1, {"record": type(record).__name__, **to_json(record)})))
        message = addresser.address(item)
        assert (message.partition, message.key) == (home, BREAKER.encode())
        assert Decoder().decode(message.value, type(record).__name__) == item.record


@pytest.mark.parametrize(
    ("parts", "key", "home"),
    [
        ({"scope": "ACTOR", "actor": "a/b"}, b"ACTOR:acme/a%2Fb", "acme/a%2Fb"),
        ({"scope": "ACTOR_TOOL", "actor": "a", "tool": "t"}, b"ACTOR_TOOL:acme/a/t", "acme/a"),
        ({"scope": "SESSION", "actor": "a", "trace_id": "7"}, b"SESSION:acme/a/7", "acme/a"),
        ({"scope": "TOOL", "tool": "t"}, b"TOOL:acme/t", "acme/t"),
        ({"scope": "TENANT"}, b"TENANT:acme", "acme"),
    ],
)
@pytest.mark.parametrize("count", [1, 4, 31])
def test_a_signal_goes_to_its_target_s_home_and_is_what_a_guest_would_send(
    parts: dict[str, str], key: bytes, home: str, count: int
) -> None:
    fields = {"ts": NOW, "source": "judge", "tenant": "acme", "level": "TRIP", "metric": "signals.m", **parts}
    item = prepared(assembler("Signal").prepare(Line(1, 1, fields)))
    message = Addresser(NAMES, lambda _: count).address(item)
    assert (message.topic, message.key) == ("x.signals", key)
    assert message.partition == partition_for(home, count)
    assert dict(message.headers)["ce_source"] == b"/fuseboard/judge"
    guest = signal_record(**fields, signal_id=item.record.signal_id, client_id=item.record.client_id, seq=0)
    assert message == to_message(guest, count, "x.")


@pytest.mark.parametrize("kind", ["Signal", "Override", "EnforcementAck"])
def test_records_about_targets_are_numbered_together(kind: str) -> None:
    """A worker keeps one replay window for each client and topic: a number that came twice would be dropped."""
    common = {"tenant": "default", "ts": NOW, "scope": "ACTOR"}
    given = {
        "Signal": {**common, "source": "me", "level": "WARN", "metric": "m"},
        "Override": {**common, "kind": "TRIP", "person": "me", "reason": "test"},
        "EnforcementAck": to_json(ack()),
    }[kind]
    taken = assembler(kind)
    items = [
        prepared(taken.prepare(Line(i, 1, {**given, **({} if kind == "EnforcementAck" else {"actor": actor})})))
        for i, actor in enumerate("abab")
    ]
    assert [item.record.seq for item in items] == [0, 1, 2, 3]


def test_a_signal_without_a_target_has_no_home() -> None:
    fields = {"ts": NOW, "source": "j", "tenant": "default", "scope": "OTHER", "level": "WARN", "metric": "m"}
    item = prepared(assembler("Signal").prepare(Line(1, 1, fields)))
    with pytest.raises(KeyFormatError, match="no breakers"):
        Addresser(NAMES, lambda _: 7).address(item)


def test_commands_are_not_publishable_even_if_well_formed() -> None:
    found = problem(assembler(None).prepare(Line(1, 1, {"record": "BreakerCommand", **to_json(command())})))
    assert "workers only" in found.detail


def test_rebase_moves_the_first_or_last_event_to_now() -> None:
    last = Rebase("last", first=100, last=300, now=NOW, speed=None)
    assert [last(ts) for ts in (100, 300)] == [NOW - 200, NOW]
    first = Rebase("first", first=100, last=300, now=NOW, speed=10.0)
    assert [first(ts) for ts in (100, 300)] == [NOW, NOW + 20]


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20), st.floats(0.1, 1_000.0))
def test_the_pace_follows_event_time_and_never_waits_for_the_past(gaps: list[int], speed: float) -> None:
    pacer, now, ts = Pacer(speed), 50.0, NOW
    for gap in gaps:
        now += pacer.wait_s(ts, now)
        assert now - 50.0 == pytest.approx((ts - NOW) / 1e6 / speed, abs=1e-6)
        assert pacer.wait_s(ts - 1_000, now) == 0.0
        ts += gap


@given(
    st.dictionaries(
        st.sampled_from(["ts", "actor", "tool", "outcome", "seq", "cost_usd", "x", "record", "kafka", "trace_id"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=5,
        ),
    )
)
def test_no_json_object_can_stop_publish(fields: dict[str, Any]) -> None:
    text = json.dumps({"ts": NOW, "actor": "a", "tool": "t", "outcome": "OK", **fields})
    (item,) = read_lines(io.BytesIO(text.encode()), "f.jsonl")
    assert isinstance(item, Line)
    made = assembler().prepare(item)
    if isinstance(made, Prepared):
        try:
            message = Addresser(NAMES, lambda _: 4).address(made)
        except ADDRESS_ERRORS:
            assert made.record.ts > 253_402_300_799_000_000  # a year of five digits has no RFC 3339 form
            return
        assert Decoder().decode(message.value, "ToolCall") == made.record
    else:
        assert made.detail
