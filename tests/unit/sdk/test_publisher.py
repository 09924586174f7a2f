"""The publisher, step by step: order, limits, trouble with the broker, spool and loss."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from fuseboard import ConfigurationError, Effect
from fuseboard.envelope import RecordEvent
from fuseboard.transport import Verdict
from fuseboard_schemas.records import StepKind, TraceStep
from tests.unit.sdk.support import NOW_US, World, decode, world

TOOL_CALLS = "fuseboard.tool-calls"
TRACES = "fuseboard.traces"


def step(number: int = 0, actor: str = "support_agent") -> RecordEvent:
    return RecordEvent(TraceStep(event_id="", ts=NOW_US + number, actor=actor, kind=StepKind.PLAN))


def submit(there: World, count: int, actor: str = "support_agent") -> None:
    for number in range(count):
        there.runtime.publisher.submit(step(number, actor))


def seqs(there: World) -> list[int]:
    return [record.seq for record in decode(there.broker, "TraceStep")]


def spooling(tmp_path: Path, **settings: Any) -> World:
    return world(spool_dir=str(tmp_path), spool_after_s=5.0, **settings)


def test_everything_is_delivered_in_order() -> None:
    there = world()
    submit(there, 1200)
    there.deliver()
    assert seqs(there) == list(range(1200))
    assert there.fuse.flush(0) == 0
    assert (there.fuse.counts.accepted, there.fuse.counts.delivered, there.fuse.counts.lost) == (1200, 1200, 0)


def test_memory_is_bounded_and_nothing_is_lost_below_the_bounds() -> None:
    there = world(memory_events=10, queue_events=30)
    there.broker.up = False
    submit(there, 30)
    there.deliver()
    assert len(there.runtime.publisher._window) == 10
    submit(there, 8)
    there.broker.up = True
    there.deliver(20)
    assert seqs(there) == list(range(38))


def test_a_full_publisher_waits_for_reports_instead_of_spinning() -> None:
    there = world(memory_events=5, queue_events=50)
    there.broker.up = False
    submit(there, 40)
    there.deliver()
    there.broker.waits.clear()
    there.deliver(3)
    assert all(wait > 0 for wait in there.broker.waits)
    there.clock.sleep(2.0)
    there.broker.waits.clear()
    there.deliver(3)
    assert min(there.broker.waits) >= 0.1, "and less often when nothing moves"


def test_bytes_are_bounded_too() -> None:
    there = world(memory_bytes=4000, spool_bytes=10_000)
    there.broker.up = False
    submit(there, 100)
    there.deliver()
    assert len(there.runtime.publisher._window) < 12


def test_loss_is_counted_and_shows_as_a_gap_where_it_happened() -> None:
    there = world(memory_events=5, queue_events=5)
    there.broker.up = False
    submit(there, 5)
    there.deliver()
    submit(there, 20)  # 5 in memory, 1 held, 4 queued: the rest is dropped as the queue is full.
    there.deliver()
    lost = there.fuse.counts.lost
    assert lost > 0
    there.broker.up = True
    there.deliver(20)
    submit(there, 3)
    there.deliver()
    arrived = seqs(there)
    assert arrived == sorted(set(arrived))
    assert len(arrived) + lost == 28
    assert arrived[-3:] == [25, 26, 27]
    assert arrived[:-3] == list(range(len(arrived) - 3))


def test_a_gap_belongs_to_the_actor_that_lost() -> None:
    there = world(queue_events=4)
    submit(there, 4, "a")
    submit(there, 2, "b")
    submit(there, 1, "a")
    there.deliver()
    submit(there, 1, "b")
    submit(there, 1, "a")
    there.deliver()
    arrived = [(record.actor, record.seq) for record in decode(there.broker, "TraceStep")]
    assert arrived == [("a", 0), ("a", 1), ("a", 2), ("a", 3), ("b", 2), ("a", 5)]
    assert there.fuse.counts.lost == 3


def test_a_report_that_asks_for_a_retry_sends_everything_again_in_order() -> None:
    there = world()
    there.broker.verdicts[TRACES] = Verdict.RETRY
    submit(there, 5)
    there.deliver()
    submit(there, 5)
    assert there.broker.log == []
    there.broker.verdicts.clear()
    there.deliver()
    assert there.broker.log == [], "it waits before it tries again"
    there.clock.sleep(1.0)
    there.deliver()
    assert seqs(there) == list(range(10))
    assert there.broker.connections == 2


def test_what_was_delivered_before_a_retry_is_not_sent_again() -> None:
    there = world()
    look = there.fuse.tool(effect=Effect.READ, name="look")(lambda: None)
    there.broker.verdicts[TRACES] = Verdict.RETRY
    look()
    submit(there, 2)
    look()
    there.deliver()
    there.broker.verdicts.clear()
    there.clock.sleep(1.0)
    there.deliver()
    assert [message.topic for message in there.broker.log] == [TOOL_CALLS, TOOL_CALLS, TRACES, TRACES]


def test_retries_back_off() -> None:
    there = world()
    there.broker.verdicts[TRACES] = Verdict.RETRY
    submit(there, 1)
    for _ in range(600):
        there.deliver(1)
        there.clock.sleep(0.1)
    assert there.broker.connections < 14


def test_a_message_the_broker_refuses_for_good_is_lost_alone() -> None:
    there = world()
    there.broker.verdicts[TRACES] = Verdict.REFUSED
    look = there.fuse.tool(effect=Effect.READ, name="look")(lambda: None)
    submit(there, 1)
    look()
    there.deliver()
    assert [message.topic for message in there.broker.log] == [TOOL_CALLS]
    assert there.fuse.counts.lost == 1
    assert there.fuse.flush(0) == 0


def test_an_event_that_cannot_be_encoded_is_lost_alone_and_leaves_a_gap() -> None:
    there = world()
    submit(there, 1)
    there.runtime.publisher.submit(
        RecordEvent(TraceStep(event_id="", ts="no", actor="support_agent", kind=StepKind.PLAN))
    )  # type: ignore[arg-type]
    submit(there, 1)
    there.deliver()
    assert seqs(there) == [0, 2]
    assert there.fuse.counts.lost == 1


def test_a_connection_that_cannot_be_made_keeps_the_events() -> None:
    there = world()
    connect = there.broker.connect
    refused = ConfigurationError("wrong settings")

    def fail() -> Any:
        raise refused

    there.runtime.publisher._make_transport = fail
    submit(there, 3)
    there.deliver()
    assert there.fuse.flush(0) == 3
    there.runtime.publisher._make_transport = connect
    there.clock.sleep(20.0)
    there.deliver()
    assert seqs(there) == [0, 1, 2]


def test_a_connection_that_cannot_be_made_is_complained_about_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    there = world()

    def fail() -> Any:
        raise ConfigurationError("wrong settings.")

    there.runtime.publisher._make_transport = fail
    submit(there, 1)
    for _ in range(59):
        there.deliver()
        there.clock.sleep(1.0)
    assert [record.getMessage() for record in caplog.records] == ["wrong settings. Events are kept meanwhile."]
    there.clock.sleep(20.0)
    there.deliver()
    assert len(caplog.records) == 2


def test_a_connection_without_an_answer_is_replaced_and_nothing_is_out_of_order() -> None:
    there = world()
    submit(there, 3)
    there.deliver()
    there.broker.confirms = False
    submit(there, 3)
    there.deliver()
    there.clock.sleep(59.0)
    there.deliver()
    assert there.broker.connections == 1
    there.broker.confirms = True
    there.clock.sleep(2.0)
    there.deliver()
    assert there.broker.connections == 2
    assert seqs(there) == [0, 1, 2, 3, 4, 5, 3, 4, 5], "what got no answer is sent again, and told apart by its number"
    assert there.fuse.flush(0) == 0
    there.clock.sleep(600.0)
    submit(there, 1)
    there.deliver()
    assert there.broker.connections == 2, "a connection that had nothing to say is kept"


# ---------------------------------------------------------------------- spool


def test_a_long_outage_goes_to_the_spool_and_comes_back_in_order(tmp_path: Path) -> None:
    there = spooling(tmp_path, memory_events=10)
    there.broker.up = False
    submit(there, 5)
    there.deliver()
    assert there.fuse.counts.spooled == 0
    there.clock.sleep(6.0)
    there.deliver()
    assert there.fuse.counts.spooled == 5
    submit(there, 100)
    there.deliver()
    assert there.fuse.counts.spooled == 105
    assert there.fuse.flush(0) > 0
    there.broker.up = True
    there.deliver(40)
    assert seqs(there) == list(range(105))
    assert there.fuse.flush(0) == 0
    submit(there, 3)
    there.deliver()
    assert seqs(there) == list(range(108))
    assert there.fuse.counts.spooled == 105, "after the outage events go straight to Kafka again"
    assert list(tmp_path.rglob("*.seg")) == []


def test_full_memory_goes_to_the_spool_at_once(tmp_path: Path) -> None:
    there = spooling(tmp_path, memory_events=10)
    there.broker.up = False
    submit(there, 50)
    there.deliver()
    assert there.fuse.counts.spooled == 50
    there.broker.up = True
    there.deliver(20)
    assert seqs(there) == list(range(50))


def test_closing_without_a_broker_leaves_everything_to_the_next_process(tmp_path: Path) -> None:
    first = spooling(tmp_path, memory_events=10)
    first.broker.up = False
    submit(first, 25)
    first.deliver(1)
    first.runtime.publisher.shut_down()
    assert first.fuse.counts.lost == 0
    second = spooling(tmp_path)
    submit(second, 5)
    second.deliver()
    records = decode(second.broker, "TraceStep")
    old = [record.seq for record in records if record.client_id == first.fuse.client_id]
    assert old == list(range(25))
    assert [record.seq for record in records if record.client_id != first.fuse.client_id] == list(range(5))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_closing_without_a_thread_saves_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refused)
    there = spooling(tmp_path)
    submit(there, 3)
    there.fuse.close(0)
    assert (there.fuse.counts.spooled, there.fuse.counts.lost) == (3, 0)
    assert list(tmp_path.rglob("*.seg")) != []


def test_the_spool_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    first = spooling(tmp_path, memory_events=10)
    first.broker.up = False
    submit(first, 25)
    first.deliver()
    second = spooling(tmp_path)
    second.deliver()
    assert second.broker.log == []
    first.broker.up = True
    first.deliver(20)
    assert seqs(first) == list(range(25))


def test_what_was_confirmed_before_a_crash_is_not_sent_again(tmp_path: Path) -> None:
    first = spooling(tmp_path, memory_events=10)
    first.broker.up = False
    submit(first, 40)
    first.deliver()
    first.broker.up = True
    first.runtime.publisher.step()
    first.runtime.publisher.step()
    confirmed = first.fuse.counts.delivered
    assert 0 < confirmed < 40
    crash(first)
    second = spooling(tmp_path)
    second.deliver()
    arrived = seqs(first) + seqs(second)
    assert sorted(set(arrived)) == list(range(40))
    assert seqs(second)[0] >= confirmed


def test_a_full_spool_drops_and_counts(tmp_path: Path) -> None:
    there = spooling(tmp_path, memory_events=10, memory_bytes=8000, spool_bytes=16_000, queue_events=20)
    there.broker.up = False
    for _ in range(20):
        submit(there, 20)
        there.deliver(1)
    lost = there.fuse.counts.lost
    assert lost > 0
    there.broker.up = True
    there.deliver(60)
    submit(there, 1)
    there.deliver()
    arrived = seqs(there)
    assert arrived == sorted(set(arrived))
    assert arrived[-1] == 400
    assert len(arrived) + lost == 401


def test_a_directory_that_cannot_be_written_means_memory_only(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    there = world(spool_dir=str(blocked / "spool"), memory_events=10, queue_events=100)
    there.broker.up = False
    submit(there, 50)
    there.deliver()
    there.broker.up = True
    there.deliver(20)
    assert seqs(there) == list(range(50))


def test_events_after_close_are_counted_as_lost() -> None:
    there = world()
    there.runtime.publisher.shut_down()
    submit(there, 3)
    assert there.fuse.counts.lost == 3


def crash(there: World) -> None:
    """What SIGKILL leaves of the publisher: its files, closed by the kernel."""
    backlog = there.runtime.publisher._backlog
    assert backlog is not None
    backlog.abandon()


@pytest.mark.parametrize("count", [0, 7])
def test_the_thread_delivers_and_ends(count: int) -> None:
    from fuseboard import Fuseboard, Settings
    from fuseboard.runtime import Runtime
    from tests.unit.sdk.support import MemoryBroker

    broker = MemoryBroker()
    runtime = Runtime(Settings(actor="a", spool_dir=""), transport=broker.connect, follow=False)
    fuse = Fuseboard.of(runtime)
    for _ in range(count):
        fuse.record_step(StepKind.PLAN)
    assert fuse.flush(30.0) == 0
    assert len(broker.log) == count
    assert fuse.close(30.0) == 0
    thread = runtime.publisher._thread
    assert thread is None or not thread.is_alive()
