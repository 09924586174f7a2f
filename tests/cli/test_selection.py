"""What ``--from`` and ``--where`` mean."""

import dataclasses

import pytest

from fuseboard_schemas import catalogue, records
from fuseboard_schemas.errors import ConfigurationError
from fuseboard_schemas.records import BreakerCommand, Effect, Outcome, ToolCall
from fuseboard_streams.cli.kafka import Partition
from fuseboard_streams.cli.selection import Start, find_topic, parse_conditions, parse_start

CALL = ToolCall(
    event_id="e1",
    ts=1,
    actor="support_agent_v4",
    client_id=-1,
    tool="billing.refund",
    effect=Effect.WRITE,
    outcome=Outcome.ERROR,
    probe=True,
)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("beginning", Start("beginning")),
        ("end", Start("end")),
        ("1042", Start("offset", 1042)),
        ("-20", Start("last", 20)),
        ("2026-11-23T04:00:00Z", Start("time", 1_795_406_400_000_000)),
        ("2026-11-23T05:00:00.000001+01:00", Start("time", 1_795_406_400_000_001)),
    ],
)
def test_start(text: str, start: Start) -> None:
    assert parse_start(text) == start


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-23T04:00:00", "1e3", "--5"])
def test_a_start_that_means_nothing_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--from"):
        parse_start(text)


@pytest.mark.parametrize(
    ("start", "offset"),
    [
        (Start("beginning"), 100),
        (Start("end"), 200),
        (Start("offset", 150), 150),
        (Start("offset", 5), 100),
        (Start("offset", 500), 200),
        (Start("last", 20), 180),
        (Start("last", 999), 100),
    ],
)
def test_a_start_stays_within_what_the_partition_has(start: Start, offset: int) -> None:
    assert start.offset(Partition(0, 100, 200)) == offset


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ("outcome=ERROR", True),
        ("outcome=OK", False),
        ("outcome!=OK", True),
        ("tool=billing.*", True),
        ("tool=billing", False),
        ("probe=true", True),
        ("trace_id=null", True),
        ("trace_id!=null", False),
        ("client_id=ffffffffffffffff", True),
        ("client_id=-1", True),
        ("client_id!=-1", False),
        ("ts=1", True),
    ],
)
def test_conditions(where: str, holds: bool) -> None:
    (condition,) = parse_conditions(ToolCall, [where])
    assert condition.holds(CALL) is holds


def test_named_filters_add_to_the_conditions() -> None:
    conditions = parse_conditions(ToolCall, ["probe=true"], actor="support_*", tool=None, tenant="default")
    assert len(conditions) == 3
    assert all(condition.holds(CALL) for condition in conditions)


def test_a_field_that_the_record_lacks_is_named_with_those_it_has() -> None:
    with pytest.raises(ConfigurationError, match=r"no field 'toll'.*tool"):
        parse_conditions(ToolCall, ["toll=x"])


@pytest.mark.parametrize(
    ("record", "where", "expected"),
    [
        (ToolCall, "outcome=FOO", r"--where outcome=FOO: outcome is one of OK, ERROR, TIMEOUT, DENIED, CANCELLED;"),
        (ToolCall, "outcome!=FOO", r"--where outcome!=FOO: outcome is one of OK"),
        (ToolCall, "outcome=error", r"Did you mean outcome=ERROR\?"),
        (ToolCall, "outcome=FOO*", r"is one of OK"),
        (ToolCall, "outcome=null", r"is one of OK"),
        (ToolCall, "outcome=", r"is one of OK"),
        (ToolCall, "probe=yes", r"probe is one of true, false;"),
        (ToolCall, "ts=2026-11-23", r"ts is a number"),
        (ToolCall, "attempt=null", r"attempt is a number"),
        (BreakerCommand, "state=open", r"Did you mean state=OPEN\?"),
    ],
)
def test_a_value_that_the_field_cannot_have_is_refused_with_those_it_can(
    record: type, where: str, expected: str
) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        parse_conditions(record, [where])


@pytest.mark.parametrize(
    "where",
    [
        *("outcome=ERR*", "outcome=?K", "outcome=[EO]*", "outcome!=OK", "probe=t*", "seq=null", "seq=1?", "ts=1795*"),
        *("cost_usd_micros=1200", "client_id=ffffffffffffffff", "tool=", "trace_id=null", "intent=anything"),
    ],
)
def test_a_value_that_the_field_can_have_is_taken(where: str) -> None:
    assert len(parse_conditions(ToolCall, [where])) == 1


def test_every_field_of_every_record_can_be_filtered_by() -> None:
    for name in catalogue.record_names():
        record = getattr(records, name)
        wheres = [f"{field.name}=*" for field in dataclasses.fields(record)]
        assert len(parse_conditions(record, wheres)) == len(wheres)


def test_a_field_that_is_meant_is_suggested() -> None:
    with pytest.raises(ConfigurationError, match=r"no field 'outcom' to filter by\. Did you mean 'outcome'\?"):
        parse_conditions(ToolCall, ["outcom=OK"])


def test_a_condition_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"field=value"):
        parse_conditions(ToolCall, ["tool"])


def test_topics_are_found_by_short_and_full_name() -> None:
    assert find_topic("tool-calls", "x.").record == "ToolCall"
    assert find_topic("breaker_commands", "x.").record == "BreakerCommand"
    assert find_topic("x.tool-calls", "x.").record == "ToolCall"
    with pytest.raises(ConfigurationError, match=r"tool-calls, traces"):
        find_topic("y.tool-calls", "x.")
