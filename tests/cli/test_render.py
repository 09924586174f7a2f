"""What a person sees, letter by letter."""

# ruff: noqa: E501 - the lines expected are as long as they are

import pytest

from fuseboard_schemas.records import (
    BreakerState,
    Cause,
    DeadLetter,
    DeadLetterReason,
    DeniedBy,
    InputRange,
    Mode,
    Outcome,
    Scope,
    Signal,
    SignalLevel,
    StateKind,
    StateRecord,
    StepKind,
    TaskOutcome,
    TaskResult,
    TraceStep,
)
from fuseboard_streams.cli.probeable import Probeable
from fuseboard_streams.cli.render.breakers import Settings, breaker_words, breakers_table, next_step
from fuseboard_streams.cli.render.lines import Place, header_line, record_line, tombstone_line, undecodable_line
from fuseboard_streams.cli.render.text import (
    PLAIN,
    Cell,
    Paint,
    ago,
    clip,
    clock,
    duration,
    money,
    percent,
    printable,
    rate,
    size,
    table,
    width,
)
from fuseboard_streams.cli.render.top import ShardView, Snapshot, ranges, top_lines
from tests.cli.samples import BREAKER, MINUTE, NOW, SECOND, ack, call, closed, command, half_open

PLACE = Place(3, 1042, NOW)


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "0 µs"),
        (840, "840 µs"),
        (12_400, "12 ms"),
        (1_240_000, "1.2 s"),
        (18 * SECOND, "18 s"),
        (119 * SECOND, "119 s"),
        (3 * MINUTE, "3 min"),
        (89 * MINUTE, "89 min"),
        (120 * MINUTE, "2 h"),
        (3 * 24 * 60 * MINUTE, "3 d"),
        (-18 * SECOND, "-18 s"),
    ],
)
def test_duration(micros: int, text: str) -> None:
    assert duration(micros) == text


@pytest.mark.parametrize(
    ("gap", "text"),
    [(0, "now"), (999_999, "now"), (12 * SECOND, "12 s ago"), (-18 * SECOND, "in 18 s"), (60 * MINUTE, "60 min ago")],
)
def test_ago(gap: int, text: str) -> None:
    assert ago(NOW - gap, NOW) == text


def test_numbers() -> None:
    assert [rate(x) for x in (0, 0.4, 3.14159, 51.23, 812, 51_234, 1_200_000)] == [
        "0 /s",
        "0.4 /s",
        "3.14 /s",
        "51.2 /s",
        "812 /s",
        "51.2 k/s",
        "1.20 M/s",
    ]
    assert [money(x) for x in (1_200, 0, 20_000, -5_000_000, 1_234_560_000)] == [
        "$0.0012",
        "$0.00",
        "$0.02",
        "-$5.00",
        "$1,234.56",
    ]
    assert [percent(x) for x in (0.005, 1.0, 0.12345, 0.0)] == ["0.5%", "100%", "12.35%", "0%"]
    assert [size(x) for x in (12, 51_234, 4_000_000)] == ["12 B", "51.2 kB", "4 MB"]
    assert clock(NOW + 5_000) == "04:00:00.005"
    assert clock(NOW, date=True) == "2026-11-23 04:00:00.000"
    assert clock(1 << 62) == f"{1 << 62} µs"


def test_control_characters_cannot_reach_the_terminal() -> None:
    nasty = "a\x1b[31m\u202eb\nc"
    assert printable(nasty) == "a\\x1b[31m\\u202eb\\nc"
    line = record_line(call(tool=nasty, actor=nasty, error_type=nasty), PLACE)
    assert "\x1b" not in line
    assert "\n" not in line
    assert "\x1b" not in "\n".join(breakers_table([command(tool=nasty)], NOW))
    words = breaker_words(command(reason=nasty, rule=nasty), [ack(enforcer=nasty)], None, NOW)
    assert all(text.isprintable() for text in words)


def test_table_aligns_wide_characters_and_cuts_the_widest_columns() -> None:
    rows = [("日本", Cell("x")), ("a", "yy")]
    assert table(("name", "v"), rows) == ["name  v", "日本  x", "a     yy"]
    lines = table(("name", "value"), [("n" * 60, "v" * 30)], columns=40)
    assert [width(line) for line in lines[1:]] == [40]
    assert lines[1].count("…") == 2
    assert clip("abcdef", 4) == "abc…"


def test_colour_is_off_unless_asked_for() -> None:
    assert "\x1b[" not in record_line(call(), PLACE)
    assert "\x1b[31m" in record_line(call(), PLACE, Paint(enabled=True))


def test_a_tool_call() -> None:
    assert record_line(call(), PLACE) == (
        "04:00:00.000  3@1042    support_agent_v4  billing.refund  WRITE  ERROR RateLimitError  1.2 s  $0.0012  "
        "attempt 2  trace 4bf92f35"
    )
    refused = call(
        outcome=Outcome.DENIED,
        denied_by=DeniedBy.BREAKER,
        error_type=None,
        duration_ms=0,
        cost_usd_micros=None,
        attempt=1,
        probe=True,
        tenant="acme",
        trace_id=None,
    )
    assert record_line(refused, PLACE) == (
        "04:00:00.000  3@1042    acme/support_agent_v4  billing.refund  WRITE  DENIED by BREAKER  0 µs  probe"
    )


def test_other_records() -> None:
    assert record_line(command(), PLACE) == (
        "03:59:48.000  3@1042    OPEN  DISABLE_TOOL  support_agent_v4 · get_reservation_details  13 of 21 calls failed  "
        "epoch 1795406388000"
    )
    assert "10^6.31 from 13 failures in 21 calls (normal 0.5%)" in record_line(command(reason=""), PLACE)
    assert "wave 2: 7 ok, 1 failed" in record_line(half_open(reason=""), PLACE)
    assert record_line(command(mode=Mode.SHADOW), PLACE).endswith("SHADOW")
    assert record_line(ack(), PLACE) == (
        f"03:59:48.120  3@1042    OPEN  {BREAKER}  applied by agent-7  120 ms after the transition  epoch 1795406388000"
    )
    signal = Signal(
        signal_id="s1",
        ts=NOW,
        source="worker",
        tenant="default",
        scope=Scope.TOOL,
        tool="billing.refund",
        level=SignalLevel.WARN,
        metric="calls.failed",
        evidence_log10=4.2,
        calls=30,
        failures=6,
        null_p0=0.01,
    )
    assert record_line(signal, PLACE) == (
        "04:00:00.000  3@1042    WARN  any actor · billing.refund  calls.failed  10^4.20 from 6 failures in 30 calls "
        "(normal 1%)  from worker"
    )


def test_records_without_a_form_of_their_own() -> None:
    step = TraceStep(
        event_id="e", ts=NOW, actor="a", kind=StepKind.LLM_CALL, model="gpt-4o", tokens_in=10, tokens_out=3
    )
    assert record_line(step, PLACE) == "04:00:00.000  3@1042    a  LLM_CALL  gpt-4o  OK  10→3 tokens"
    letter = DeadLetter(
        topic="fuseboard.tool-calls",
        partition=0,
        offset=7,
        arrival=NOW,
        reason=DeadLetterReason.UNDECODABLE,
        detail="3 bytes are left over",
        key=b"default/a",
        payload=b"x",
        payload_length=812,
        payload_sha256="0",
    )
    assert record_line(letter, PLACE) == (
        "04:00:00.000  3@1042    UNDECODABLE  3 bytes are left over  from fuseboard.tool-calls 0@7  812 B  key default/a"
    )
    task = TaskOutcome(event_id="e", ts=NOW, actor="a", result=TaskResult.FAILED)
    assert "result=FAILED" in record_line(task, PLACE)
    state = StateRecord(
        format=1,
        shard=3,
        writer="w-1",
        sequence=17,
        chunk=0,
        chunks=1,
        kind=StateKind.DELTA,
        restore_from=0,
        starts_round=True,
        ends_round=False,
        stream_time=NOW,
        advanced_us=0,
        rules_version="builtin-1",
        inputs=(InputRange(topic="tool-calls", from_offset=5, next_offset=9),),
        block=b"x" * 2_000,
    )
    assert record_line(state, PLACE) == (
        "04:00:00.000  3@1042    shard 3  DELTA 17  2 kB  starts a round  tool-calls:5..9  by w-1"
    )


def test_what_is_no_record() -> None:
    assert tombstone_line("default/a", PLACE) == "04:00:00.000  3@1042    TOMBSTONE  default/a"
    assert undecodable_line("k", "WRONG_RECORD", "Expected ToolCall", 12, PLACE) == (
        "04:00:00.000  3@1042    WRONG_RECORD  Expected ToolCall  12 B  key k"
    )
    assert header_line([("ce_id", "x1"), ("none", None)]) == "    ce_id=x1  none="


def test_the_table_of_breakers_has_the_open_ones_first() -> None:
    other = half_open(breaker_id="ACTOR_TOOL:default/support_agent_v4/pay", tool="pay")
    assert breakers_table([closed(), other, command()], NOW, probed={BREAKER: True}) == [
        "state      action        target                                      since       evidence  failed  normal  next",
        "OPEN       DISABLE_TOOL  support_agent_v4 · get_reservation_details  12 s ago     10^6.31   13/21    0.5%  "
        "probes in 18 s",
        "HALF_OPEN  DISABLE_TOOL  support_agent_v4 · pay                      4 min ago    10^6.31   13/21    0.5%  "
        "probing, wave 2 (7 ok, 1 failed when it began)",
        "CLOSED                   acme/billing_agent                          60 min ago                      0.5%",
    ]


def test_an_open_breaker_in_words() -> None:
    behind = ack(enforcer="agent-8", client_id=5, epoch=1_795_406_000_000, state=BreakerState.CLOSED)
    settings = Settings("defaults", [("trip level A", "10^6"), ("floor", "0.5%")])
    assert breaker_words(command(), [behind, ack()], settings, NOW, shard=3, probed=True) == [
        "ACTOR_TOOL:default/support_agent_v4/get_reservation_details",
        "",
        "  State       OPEN since 2026-11-23 03:59:48.000 UTC (12 s ago)",
        "              epoch 1795406388000",
        "  Enforced    the tool may not be called (DISABLE_TOOL)",
        "  Why         the evidence crossed the trip level: 13 of 21 calls failed",
        "              evidence 10^6.31 from 13 failures in 21 calls (normal 0.5%), since 03:57:00.000",
        "              baseline: up to 0.5% of the calls failing counts as normal",
        "  Decided by  event 0193-call-21, tool-calls 3@1042",
        "  Rule        tool-failing (enforce, page), version builtin-1",
        "              runbook docs/runbooks/tool-failing.md: `fuseboard runbook tool-failing` prints it",
        "  Next        probes in 18 s",
        "              cooldown 30 s",
        "  Holds       tool-failing asks for DISABLE_TOOL since 12 s ago, until its probes come back clean",
        "  Applied by  ✓ agent-7 (client ffffffffffffffff), 120 ms after the transition, 12 s ago",
        "              … agent-8 (client 0000000000000005) is at epoch 1795406000000 (CLOSED), 12 s ago",
        "",
        "  Settings (defaults)",
        "    trip level A  10^6",
        "    floor         0.5%",
    ]


def test_a_runbook_of_ones_own_is_shown_as_it_is() -> None:
    text = "\n".join(breaker_words(command(runbook="https://wiki.example/x"), [], None, NOW))
    assert "runbook https://wiki.example/x\n" in text
    assert "runbook" not in "\n".join(breaker_words(command(runbook=None), [], None, NOW))


def test_recovery_in_words() -> None:
    text = "\n".join(breaker_words(half_open(), [], None, NOW))
    assert "HALF_OPEN since 2026-11-23 03:56:00.000 UTC (4 min ago), last change 10 s ago, reopened once" in text
    assert "probing, wave 2 (7 ok, 1 failed when it began)" in text
    assert "5 probes per enforcer in this wave" in text
    assert "next wave in 20 s at the latest" in text
    assert "no enforcer has acknowledged it" in text


def test_what_a_breaker_waits_for() -> None:
    assert next_step(command(), NOW, True) == "probes in 18 s"
    assert next_step(command(), NOW + MINUTE, True) == "probes due, waits for stream time"
    assert next_step(command(retry_at=None), NOW) == "waits for a person"
    forced = command(state=BreakerState.FORCED_OPEN, expires_at=NOW + 5 * MINUTE)
    assert next_step(forced, NOW) == "order ends in 5 min"
    assert next_step(closed(), NOW) == ""


def test_probes_are_not_promised_where_there_can_be_none() -> None:
    silent = half_open(probes_ok=0, probes_failed=0, reason="probing pay: wave 1")
    for state in (command(), silent):
        assert next_step(state, NOW, False) == "stays shut: IRREVERSIBLE, never probed"
        text = "\n".join(breaker_words(state, [], None, NOW, probed=False))
        assert "the runbook says what a person can do" in text
        assert "which nothing releases by itself" in text
        assert not any(
            promise in text for promise in ("probes in", "probing", "next wave in", "per enforcer", "come back clean")
        )
    assert next_step(command(retry_at=None), NOW, False) == "waits for a person"
    assert next_step(closed(), NOW, False) == ""


def test_probes_are_promised_with_a_reservation_where_the_effect_is_not_known() -> None:
    assert next_step(command(), NOW) == "probes in 18 s, unless IRREVERSIBLE"
    assert next_step(half_open(probes_ok=0, probes_failed=0), NOW).endswith(
        "(0 ok, 0 failed when it began), unless IRREVERSIBLE"
    )
    assert next_step(half_open(), NOW) == "probing, wave 2 (7 ok, 1 failed when it began)"
    actor = command(scope=Scope.ACTOR, tool=None)
    assert next_step(actor, NOW) == "probes in 18 s"
    assert "only WRITE calls of the actor can be probes" in "\n".join(breaker_words(actor, [], None, NOW))


def test_a_shadow_breaker_enforces_nothing() -> None:
    text = "\n".join(breaker_words(command(mode=Mode.SHADOW), [], None, NOW))
    assert "nothing: the rule is in shadow mode; it would be: the tool may not be called (DISABLE_TOOL)" in text


def snapshot(**changes: object) -> Snapshot:
    shards = [
        ShardView(0, "worker-a", 0.12, NOW - 100_000, NOW - 300_000),
        ShardView(1, "worker-a", 0.3, NOW - 100_000, NOW - 300_000),
        ShardView(2, "worker-b", 3.0, NOW - MINUTE, NOW - MINUTE),
    ]
    values: dict[str, object] = {
        "at": NOW,
        "bootstrap": "localhost:9092",
        "prefix": "fuseboard.",
        "partitions": 4,
        "events_per_s": 51_234.0,
        "window_s": 10,
        "dead_letters": 2,
        "shards": shards,
        "open_breakers": [command()],
        "probed": {BREAKER: True},
        "transitions": [half_open(), command(), closed()],
    }
    return Snapshot(**{**values, **changes})  # type: ignore[arg-type]


def test_top() -> None:
    assert top_lines(snapshot()) == [
        "fuseboard top · localhost:9092 · fuseboard.*  04:00:00.000 UTC",
        "",
        "51.2 k/s tool calls   lag 0.3 s   1 worker, 2 of 4 shards   2 dead letters in 1 min",
        "",
        "worker    shards  lag    stream time   heard",
        "worker-a  0-1     0.3 s  03:59:59.900  now",
        "worker-b  2              03:59:00.000  silent, 60 s ago",
        "",
        "1 breaker open",
        "state  action        target                                      since     evidence  failed  normal  next",
        "OPEN   DISABLE_TOOL  support_agent_v4 · get_reservation_details  12 s ago   10^6.31   13/21    0.5%  probes in 18 s",
        "",
        "latest transitions",
        "03:59:50.000  HALF_OPEN  support_agent_v4 · get_reservation_details  wave 2: 7 ok, 1 failed",
        "03:59:48.000  OPEN       support_agent_v4 · get_reservation_details  10^6.31 from 13 failures in 21 calls "
        "(normal 0.5%)",
        "03:00:00.000  CLOSED     acme/billing_agent",
    ]


@pytest.mark.parametrize("paint", [Paint(), Paint(enabled=True)])
def test_top_fits_the_terminal(paint: Paint) -> None:
    import re

    lines = top_lines(snapshot(), paint, columns=80, rows=15)
    assert len(lines) <= 15
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert max(width(line) for line in plain[3:]) <= 80


def test_top_without_a_worker_says_how_to_start_one() -> None:
    lines = top_lines(snapshot(shards=[], open_breakers=[], transitions=[], events_per_s=0.0))
    assert lines[2].startswith("0 /s tool calls   lag unknown   0 workers, 0 of 4 shards")
    assert "start one with `fuseboard worker`" in lines[4]
    assert lines[-1] == "no breaker is open"


def test_ranges() -> None:
    assert ranges([7, 0, 1, 2, 3]) == "0-3, 7"
    assert ranges([]) == ""


def test_an_order_is_named_with_its_own_topic() -> None:
    ordered = command(cause=Cause.OVERRIDE, event_id="r1", source_offset=7)
    text = "\n".join(breaker_words(ordered, [], None, NOW, PLAIN, 2))
    assert "order r1, overrides 2@7" in text
    assert not Probeable("x.").note(ordered)
