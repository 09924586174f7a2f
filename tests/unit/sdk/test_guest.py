"""Signals of guests: what makes one, under which id, as which message, and how a writer sees them arrive."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from fuseboard.guest import SignalError, SignalWriter, content_id, signal_record, to_message
from fuseboard_schemas import catalogue, wire
from fuseboard_schemas.codec import Decoder, EncodeError
from fuseboard_schemas.errors import ConfigurationError, UnreachableError
from fuseboard_schemas.keys import KeyFormatError, partition_for
from fuseboard_schemas.records import Scope, Signal, SignalLevel
from fuseboard_streams.rules.load import load

TS = 1_790_000_000_123_456


def made(**changes: Any) -> Signal:
    given: dict[str, Any] = {
        "scope": "ACTOR_TOOL",
        "actor": "support_agent",
        "tool": "refund",
        "level": "TRIP",
        "metric": "signals.low_scores",
        "source": "judge",
        "ts": TS,
    }
    return signal_record(**given | changes)


# ------------------------------------------------------------------- records


def test_a_finding_becomes_a_record() -> None:
    record = made(tenant="acme", value=3, reason="3 traces scored below 0.4", event_id="score-9")
    assert record == Signal(
        signal_id=record.signal_id,
        ts=TS,
        source="judge",
        tenant="acme",
        scope=Scope.ACTOR_TOOL,
        actor="support_agent",
        tool="refund",
        level=SignalLevel.TRIP,
        metric="signals.low_scores",
        value=3.0,
        event_id="score-9",
        reason="3 traces scored below 0.4",
    )
    assert isinstance(record.value, float)


@pytest.mark.parametrize(
    ("scope", "parts"),
    [
        (Scope.ACTOR, {"actor": "a"}),
        (Scope.ACTOR_TOOL, {"actor": "a", "tool": "t"}),
        (Scope.TOOL, {"tool": "t"}),
        (Scope.TENANT, {}),
        (Scope.SESSION, {"actor": "a", "trace_id": "4bf92f35"}),
    ],
)
def test_every_kind_of_target(scope: Scope, parts: dict[str, str]) -> None:
    record = made(**{"actor": None, "tool": None, **parts}, scope=scope)
    assert record.scope is scope
    assert {name: getattr(record, name) for name in parts} == parts


def test_times_are_microseconds_or_have_a_time_zone() -> None:
    at = datetime(2026, 9, 21, 14, 13, 20, 123_456, tzinfo=UTC)
    assert made(ts=at).ts == made(ts=at.astimezone(timezone(timedelta(hours=-7)))).ts == TS


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scope": "AGENT"}, "scope is 'AGENT': expected one of ACTOR, ACTOR_TOOL, TOOL, TENANT, SESSION."),
        ({"scope": "OTHER"}, "scope is 'OTHER': expected one of ACTOR, ACTOR_TOOL, TOOL, TENANT, SESSION."),
        ({"level": "CRITICAL"}, "level is 'CRITICAL': expected one of INFO, WARN, TRIP."),
        ({"level": None}, "level is None: expected one of"),
        ({"actor": None}, "actor is missing: a signal about an ACTOR_TOOL names its tenant and actor and tool."),
        ({"tool": ""}, "tool is '': expected a text of 1 to 256 bytes of UTF-8 without NUL."),
        ({"tool": b"refund"}, "tool is b'refund': expected a text"),
        ({"actor": "a\0"}, "actor is 'a\\x00': expected a text"),
        ({"actor": "é" * 129}, "actor is 'éé"),
        ({"actor": "\ud800"}, "actor is '\\ud800': expected a text"),
        ({"tenant": None}, "tenant is missing"),
        ({"scope": "ACTOR"}, "tool is 'refund', but a signal about an ACTOR has none: leave it out, or say which of"),
        ({"scope": "TOOL"}, "actor is 'support_agent', but a signal about a TOOL has none"),
        ({"trace_id": "t"}, "trace_id is 't', but a signal about an ACTOR_TOOL has none: leave it out, or say which"),
        ({"metric": "low_scores"}, "metric is 'low_scores': expected signals.<name>"),
        ({"metric": "signals."}, "expected signals.<name>"),
        ({"metric": "signals.Low"}, "lower-case letters, dots and underscores"),
        ({"metric": "signals.low\n"}, "expected signals.<name>"),
        ({"metric": None}, "metric is None"),
        ({"source": ""}, "source is '': expected a text"),
        (
            {"source": "fuseboard/failure"},
            "workers call themselves fuseboard/…, and pass over what they have published",
        ),
        ({"ts": 1_790_000_000}, "seconds are to be multiplied by 1,000,000, milliseconds by 1,000."),
        ({"ts": 1_790_000_000_123}, "seconds are to be multiplied by 1,000,000, milliseconds by 1,000."),
        ({"ts": TS * 1_000}, "in the years 2000 to 9999"),
        ({"ts": 1.79e15}, "ts is 1790000000000000.0: expected whole microseconds since 1970-01-01 UTC, or a datetime."),
        ({"ts": True}, "ts is True: expected whole microseconds"),
        ({"ts": datetime(2026, 9, 21)}, "without a time zone: give it one"),
        ({"value": float("nan")}, "value is nan: expected a finite number, or None."),
        ({"value": 10**400}, "expected a finite number, or None."),
        ({"value": "0.2"}, "value is '0.2': expected a finite number, or None."),
        ({"value": True}, "value is True: expected a finite number"),
        ({"reason": 5}, "reason is 5: expected a text, or None."),
        ({"event_id": ""}, "event_id is '': expected a text"),
        ({"signal_id": "x" * 257}, "signal_id is 'xxx"),
        ({"client_id": 1 << 63}, "client_id is 9223372036854775808: expected an integer of 64 bits with a sign"),
        ({"client_id": 1, "seq": -1}, "seq is -1: expected a number that counts from 0, or None."),
        ({"client_id": 1, "seq": 1.0}, "seq is 1.0: expected a number that counts"),
        ({"seq": 4}, "seq is 4, but client_id is 0"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SignalError) as failure:
        made(**changes)
    assert says in str(failure.value)
    assert len(str(failure.value)) < 400


def test_a_reason_is_one_line_of_bounded_length() -> None:
    assert made(reason=" the answer\r\n\tmade  up\x85a flight ").reason == "the answer made up a flight"
    assert made(reason=" \n").reason is None
    assert made(reason="half a pair: \ud800").reason == "half a pair: ?"
    assert made(reason="word " * 100).reason == ("word " * 100).strip()
    assert made(reason="word " * 101).reason == ("word " * 101)[:499] + "…"


# ------------------------------------------------------------------------ ids


def test_the_same_finding_has_the_same_id_in_any_process() -> None:
    program = (
        "from fuseboard.guest import signal_record as r; print(r(scope='ACTOR', actor='a', level='WARN', "
        f"metric='signals.m', source='s', ts={TS}, value=0.1, event_id='e').signal_id)"
    )
    one = signal_record(
        scope=Scope.ACTOR,
        actor="a",
        level=SignalLevel.WARN,
        metric="signals.m",
        source="s",
        ts=datetime(2026, 9, 21, 14, 13, 20, 123_456, tzinfo=UTC),
        value=0.1,
        event_id="e",
    )
    # What was published once must keep its id in later versions, or a guest that is upgraded repeats itself.
    assert one.signal_id == "0ff67f650537023cf41ef0c808ea5b45"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == one.signal_id


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant": "acme"},
        {"scope": "ACTOR", "tool": None},
        {"actor": "another"},
        {"tool": "another"},
        {"level": "WARN"},
        {"metric": "signals.others"},
        {"source": "another"},
        {"ts": TS + 1},
        {"event_id": "e"},
    ],
    ids=str,
)
def test_another_finding_has_another_id(changes: dict[str, Any]) -> None:
    assert made(**changes).signal_id != made().signal_id


@pytest.mark.parametrize(
    "changes", [{"reason": "x"}, {"value": 0.5}, {"client_id": 7}, {"client_id": 7, "seq": 3}], ids=str
)
def test_words_value_and_number_are_not_part_of_the_id(changes: dict[str, Any]) -> None:
    assert made(**changes).signal_id == made().signal_id


def test_an_id_that_is_given_is_kept_and_does_not_change_the_one_by_content() -> None:
    record = made(signal_id="mine")
    assert record.signal_id == "mine"
    assert content_id(record) == made().signal_id


# ------------------------------------------------------------------- messages


def test_a_record_becomes_a_message() -> None:
    record = made(tenant="acme", actor="a/b", source="my judge/v2")
    message = to_message(record, 12, "p.")
    assert message.topic == "p.signals"
    assert message.key == b"ACTOR_TOOL:acme/a%2Fb/refund"
    assert message.partition == partition_for("acme/a%2Fb", 12)
    assert wire.schema_id(message.value) == catalogue.packaged_id("Signal")
    assert Decoder().decode(message.value, "Signal") == record
    assert message.headers == (
        ("ce_id", record.signal_id.encode()),
        ("ce_type", b"fuseboard.v1.Signal"),
        ("ce_source", b"/fuseboard/my%20judge/v2"),
        ("ce_specversion", b"1.0"),
        ("ce_time", b"2026-09-21T14:13:20.123456Z"),
        ("content-type", b"application/avro"),
    )


def test_the_default_prefix_is_everybody_s() -> None:
    assert to_message(made(), 3).topic == "fuseboard.signals"


@pytest.mark.parametrize("partitions", [0, -1, 2.0, True, None])
def test_a_number_of_partitions_is_one(partitions: Any) -> None:
    with pytest.raises(SignalError, match="expected the number of partitions that the topic has"):
        to_message(made(), partitions)


def test_a_record_made_by_hand_is_checked_for_its_target_and_its_types() -> None:
    with pytest.raises(KeyFormatError, match="one of them is missing"):
        to_message(replace(made(), tool=None), 3)
    with pytest.raises(EncodeError, match=r"Signal\.value cannot be 'low'"):
        to_message(replace(made(), value="low"), 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="prefix"):
        to_message(made(), 3, "a b")


def test_importing_needs_no_kafka_client_and_nothing_heavy() -> None:
    heavy = ["confluent_kafka", "fastavro", "asyncio", "numpy", "polars", "pydantic", "fuseboard_streams"]
    program = (
        "import sys; from fuseboard.guest import signal_record, to_message; "
        f"to_message(signal_record(scope='TENANT', level='WARN', metric='signals.m', source='s', ts={TS}), 4); "
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------ the page


def _blocks(language: str) -> list[str]:
    page = Path(__file__).parents[3] / "docs" / "guests.md"
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_s_snippets_do_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_writer, alone = _blocks("python")
    producer = FakeProducer({"fuseboard.signals": 12})
    monkeypatch.setattr("confluent_kafka.Producer", lambda settings: producer)
    exec(with_a_writer, {})
    ((topic, partition, key, value, _),) = producer.sent
    assert (topic, partition) == ("fuseboard.signals", partition_for("default/support_agent", 12))
    assert key == b"ACTOR_TOOL:default/support_agent/refund"
    assert Decoder().decode(value, "Signal").level is SignalLevel.TRIP

    names: dict[str, Any] = {}
    exec(alone, names)
    assert names["message"].partition == partition


def test_the_page_s_rule_is_one() -> None:
    (rule,) = _blocks("yaml")
    rules, _ = load(f"version: 1\n{rule}".encode(), "guests.md")
    assert rules.breakers["low-scores"].metric == made().metric


# --------------------------------------------------------------------- writer


class FakeProducer:
    """A producer whose broker does what it is told."""

    def __init__(self, topics: dict[str, int]) -> None:
        self.topics = topics
        self.full = 0
        self.refuse: KafkaError | None = None
        self.fail: KafkaError | None = None
        self.away = False
        self.sent: list[tuple[Any, ...]] = []
        self._reports: list[Callable[..., None]] = []

    def list_topics(self, timeout: float) -> Any:
        if self.away:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        found = {name: SimpleNamespace(partitions=dict.fromkeys(range(n))) for name, n in self.topics.items()}
        return SimpleNamespace(topics=found)

    def produce(
        self,
        topic: str,
        value: bytes,
        key: bytes,
        partition: int,
        on_delivery: Callable[..., None],
        headers: list[tuple[str, bytes]],
    ) -> None:
        if self.full:
            self.full -= 1
            raise BufferError
        if self.refuse is not None:
            raise KafkaException(self.refuse)
        self.sent.append((topic, partition, key, value, tuple(headers)))
        self._reports.append(on_delivery)

    def poll(self, timeout: float) -> None:
        if not self.away:
            reports, self._reports = self._reports, []
            for report in reports:
                report(self.fail, None)

    def flush(self, timeout: float) -> int:
        self.poll(timeout)
        return len(self._reports)


def writer(producer: FakeProducer, **more: Any) -> SignalWriter:
    return SignalWriter(producer, prefix="p.", **more)  # type: ignore[arg-type]


def test_a_writer_sends_to_the_home_of_the_target() -> None:
    producer = FakeProducer({"p.signals": 7, "p.tool-calls": 7})
    with writer(producer) as signals:
        signals.send(made())
        signals.send(made(scope="TENANT", actor=None, tool=None))
    expected = [to_message(each, 7, "p.") for each in (made(), made(scope="TENANT", actor=None, tool=None))]
    assert producer.sent == [(m.topic, m.partition, m.key, m.value, m.headers) for m in expected]
    assert signals.partitions == 7


def test_a_topic_that_is_not_there_is_named() -> None:
    with pytest.raises(SignalError, match=r"There is no topic p\.signals\. Create it with `fuseboard topics apply`"):
        writer(FakeProducer({"fuseboard.signals": 3}))


def test_no_broker() -> None:
    producer = FakeProducer({"p.signals": 3})
    producer.away = True
    with pytest.raises(UnreachableError, match="Broker transport failure"):
        writer(producer)


def test_a_full_queue_is_waited_for() -> None:
    producer = FakeProducer({"p.signals": 3})
    signals = writer(producer)
    producer.full = 5
    signals.send(made())
    assert len(producer.sent) == 1


def test_a_queue_that_stays_full_is_an_error() -> None:
    producer = FakeProducer({"p.signals": 3})
    signals = writer(producer, timeout_s=-1.0)
    producer.full = 1_000
    with pytest.raises(UnreachableError, match="queue has been full"):
        signals.send(made())


def test_a_refused_message_is_the_signal_s_fault() -> None:
    producer = FakeProducer({"p.signals": 3})
    producer.refuse = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
    with pytest.raises(SignalError, match=r"was refused by the producer: .*too large"):
        writer(producer).send(made())


def test_what_was_not_delivered_is_an_error_once() -> None:
    producer = FakeProducer({"p.signals": 3})
    signals = writer(producer)
    producer.fail = KafkaError(KafkaError._MSG_TIMED_OUT)
    signals.send(made())
    with pytest.raises(UnreachableError, match="1 of the signals sent were not delivered, the first of them because"):
        signals.send(made(level="WARN"))
    producer.fail = None
    signals.send(made())
    signals.flush()


def test_the_end_of_the_block_waits_for_the_confirmations() -> None:
    producer = FakeProducer({"p.signals": 3})
    with pytest.raises(UnreachableError, match="1 messages were not confirmed"):
        _send_and_lose_the_broker(producer)


def test_an_error_in_the_block_is_not_hidden_by_what_was_not_confirmed() -> None:
    producer = FakeProducer({"p.signals": 3})
    with pytest.raises(ZeroDivisionError):
        _send_and_lose_the_broker(producer, 1)


def _send_and_lose_the_broker(producer: FakeProducer, mistakes: int = 0) -> None:
    with writer(producer) as signals:
        producer.away = True
        signals.send(made())
        assert [1 / 0 for _ in range(mistakes)] == []
