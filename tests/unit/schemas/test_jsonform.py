"""What the JSON form accepts, and what its errors say."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from fuseboard_schemas.jsonform import JsonFormError, format_time, from_json, parse_line, time_from_json, to_json
from fuseboard_schemas.records import Action, Effect, Hold, Outcome, Recovery, ToolCall

BASE: dict[str, Any] = {"event_id": "e", "ts": 1_767_225_600_000_000, "actor": "a", "tool": "t", "outcome": "OK"}


def read(**fields: Any) -> ToolCall:
    line = json.dumps(BASE | fields)
    parsed: ToolCall = parse_line("ToolCall", line, where="events.jsonl:12")
    return parsed


def complaint(record: str = "ToolCall", /, **fields: Any) -> str:
    with pytest.raises(JsonFormError) as raised:
        from_json(record, BASE | fields, where="events.jsonl:12")
    message = str(raised.value)
    assert message.startswith("events.jsonl:12: ")
    return message


def test_defaults_fill_what_is_left_out() -> None:
    assert read() == ToolCall(event_id="e", ts=BASE["ts"], actor="a", tool="t", outcome=Outcome.OK)
    assert read().effect is Effect.IRREVERSIBLE
    filled = from_json("ToolCall", {"actor": "b"}, where="x", defaults=BASE)
    assert (filled.event_id, filled.actor) == ("e", "b")


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2026-01-01T00:00:00Z", 0),
        ("2026-01-01t00:00:00z", 0),
        ("2026-01-01 00:00:00.25Z", 250_000),
        ("2026-01-01T00:00:00.123456789Z", 123_456),
        ("2026-01-01T02:30:00+02:30", 0),
        ("2025-12-31T19:00:00-05:00", 0),
        ("2025-12-31T23:59:60Z", 0),
    ],
)
def test_times_as_text(text: str, micros: int) -> None:
    assert read(ts=text).ts == 1_767_225_600_000_000 + micros


def test_times_come_back_as_text() -> None:
    assert to_json(read(ts="2026-01-01T00:00:00.000001Z"))["ts"] == "2026-01-01T00:00:00.000001Z"
    assert format_time(0) == "1970-01-01T00:00:00.000000Z"
    assert format_time(1 << 62) == 1 << 62


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1_767_225_600_000, "It looks like milliseconds; multiply it by 1,000. The unit is never guessed."),
        (1_767_225_600, "It looks like seconds; multiply it by 1,000,000. The unit is never guessed."),
        (17, "The unit is never guessed."),
        (-1, "The unit is never guessed."),
        (1.5e15, "got 1500000000000000.0"),
        (True, "got true"),
        (None, "got null"),
        ("2026-01-01T00:00:00", "It has no time zone; append Z for UTC."),
        ("2026-02-30T00:00:00Z", "Day is out of range for month."),
        ("2026-01-01", 'got "2026-01-01"'),
        ("yesterday", "RFC 3339"),
    ],
)
def test_what_is_no_time(value: Any, message: str) -> None:
    text = complaint(ts=value)
    assert "field `ts`: expected a time as RFC 3339" in text
    assert message in text


def test_a_time_by_itself() -> None:
    assert time_from_json("2026-01-01T00:00:00Z", "since", where="--since") == BASE["ts"]
    with pytest.raises(JsonFormError, match="--since: field `since`"):
        time_from_json("soon", "since", where="--since")


@pytest.mark.parametrize(
    ("dollars", "micros"),
    [
        (0.1, 100_000),
        (1, 1_000_000),
        ("0.000001", 1),
        (-2.5, -2_500_000),
        (Decimal("9223372036854.775807"), (1 << 63) - 1),
        (1e-06, 1),
        (None, None),
    ],
)
def test_dollars_are_exact(dollars: Any, micros: int | None) -> None:
    record = from_json("ToolCall", BASE | {"cost_usd": dollars, "amount_usd": dollars}, where="x")
    assert (record.cost_usd_micros, record.amount_usd_micros) == (micros, micros)


def test_dollars_in_a_line_keep_their_digits() -> None:
    line = json.dumps(BASE)[:-1] + ', "cost_usd": 9007199254.740993}'
    assert parse_line("ToolCall", line, where="x").cost_usd_micros == 9_007_199_254_740_993


@pytest.mark.parametrize(
    ("dollars", "message"),
    [
        (0.0000001, "at most 6 decimal places"),
        ("1e400000", "at most 6 decimal places"),
        ("NaN", "dollars"),
        ("Infinity", "dollars"),
        ("ten", "dollars as a number"),
        (True, "dollars as a number"),
        (1e13, "fit 64 bits"),
    ],
)
def test_what_are_no_dollars(dollars: Any, message: str) -> None:
    text = complaint(cost_usd=dollars)
    assert "field `cost_usd`" in text
    assert message in text


def test_two_different_costs_are_refused() -> None:
    assert "differ" in complaint(cost_usd=1, cost_usd_micros=2)
    assert read(cost_usd=1, cost_usd_micros=1_000_000).cost_usd_micros == 1_000_000


def test_client_ids() -> None:
    assert read(client_id="00000000000000ff").client_id == 255
    assert read(client_id="ffffffffffffffff").client_id == -1
    assert read(client_id=-5).client_id == -5
    assert to_json(read(client_id=-1))["client_id"] == "ffffffffffffffff"
    for wrong in ("0x10", "", "f" * 17, 1.0, True, 1 << 63):
        assert "field `client_id`: expected 1 to 16 hexadecimal digits" in complaint(client_id=wrong)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"outcome": "ok"},
            'field `outcome`: expected one of OK, ERROR, TIMEOUT, DENIED, CANCELLED, got "ok". Did you mean OK?',
        ),
        ({"outcome": None}, "got null"),
        ({"tol": "x"}, "unknown field `tol`: did you mean `tool`?"),
        ({"zzzzzz": 1}, "known fields are "),
        ({"tool": 5}, "field `tool`: expected a string, got 5."),
        ({"tool": "\ud800"}, "half of a surrogate pair"),
        ({"attempt": 1 << 31}, "field `attempt`: expected an integer of 32 bits"),
        ({"seq": 1 << 63}, "field `seq`: expected an integer of 64 bits"),
        ({"seq": True}, "field `seq`: expected an integer of 64 bits, got true"),
        ({"seq": 1.0}, "field `seq`: expected an integer of 64 bits, got 1.0"),
        ({"probe": 1}, "field `probe`: expected true or false, got 1."),
        ({"record": "Signal"}, 'expected a ToolCall, but the object says it is a "Signal"'),
        ({"tool": ["x" * 500]}, "…"),
    ],
)
def test_what_does_not_fit_is_named(fields: dict[str, Any], message: str) -> None:
    assert message in complaint(**fields)


def test_missing_fields_are_named() -> None:
    with pytest.raises(JsonFormError, match="x: field `event_id` is missing: expected a string"):
        from_json("ToolCall", {"actor": "a"}, where="x")


@pytest.mark.parametrize(
    "line", ["", "{", "[1]", "null", '"text"', '{"a": NaN}', '{"a":1,"a":2}', "[" * 100_000, b"\xff", "{}{}"]
)
def test_lines_that_are_no_object(line: str | bytes) -> None:
    with pytest.raises(JsonFormError, match=r"^f\.jsonl:1: .*JSON object"):
        parse_line("ToolCall", line, where="f.jsonl:1")


def test_nested_records_and_bytes() -> None:
    hold = {"rule": "r", "action": "HALT", "since": "2026-01-01T00:00:00Z", "recovery": "PERSON"}
    command = {
        "breaker_id": "TENANT:t",
        "epoch": 1,
        "ts": BASE["ts"],
        "tenant": "t",
        "scope": "TENANT",
        "state": "OPEN",
        "action": "HALT",
        "model": "ANY",
        "writes": "FREE",
        "tool_access": "ON",
        "run": "HALT",
        "mode": "ENFORCE",
        "severity": "PAGE",
        "cause": "TRIP",
        "reason": "",
        "rule": "r",
        "rules_version": "",
        "since": BASE["ts"],
    }
    record = from_json("BreakerCommand", {**command, "holds": [hold]}, where="x")
    assert record.holds == (Hold(rule="r", action=Action.HALT, since=BASE["ts"], recovery=Recovery.PERSON),)
    for holds, message in [
        ("no", "expected a list"),
        ([1], "expected an object"),
        ([{**hold, "since": 1}], "`holds[0].since`"),
    ]:
        with pytest.raises(JsonFormError) as raised:
            from_json("BreakerCommand", {**command, "holds": holds}, where="x")
        assert message in str(raised.value)
    letter = {"topic": "t", "partition": 0, "offset": 1, "arrival": BASE["ts"], "reason": "OTHER", "detail": ""}
    letter |= {"payload": "AAH/", "payload_length": 3, "payload_sha256": ""}
    assert from_json("DeadLetter", letter, where="x").payload == b"\x00\x01\xff"
    with pytest.raises(JsonFormError, match="base64"):
        from_json("DeadLetter", letter | {"payload": "a*"}, where="x")
