"""Whatever happens to the broker and the process: what arrives is in order, complete up to the crash, counted."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fuseboard.envelope import RecordEvent
from fuseboard.transport import Verdict
from fuseboard_schemas.codec import Decoder
from fuseboard_schemas.records import StepKind, TraceStep
from tests.unit.sdk.support import NOW_US, MemoryBroker, World, world

TRACES = "fuseboard.traces"
ACTORS = ("a", "b")


class PublisherLife(RuleBasedStateMachine):
    """One process after another publishes through one broker and one spool directory.

    The model numbers what it submits: every event carries its own number as its time, so that what arrived can be
    compared with what was meant, and lost numbers can be found. Consumers drop repeats by client and sequence number;
    so does the model before it compares.
    """

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="spool-"))
        self.broker = MemoryBroker()
        self.submitted: dict[tuple[int, str], list[int]] = {}
        self.crashed: set[int] = set()
        self.lost: dict[int, int] = {}
        self.next_number = 0
        self.process = self.start()

    def start(self) -> World:
        made = world(
            spool_dir=str(self.root),
            memory_events=6,
            memory_bytes=6_000,
            queue_events=12,
            spool_bytes=20_000,
            spool_segment_bytes=1_500,
            spool_after_s=5.0,
        )
        made.runtime.publisher._make_transport = self.broker.connect
        return made

    @property
    def client(self) -> int:
        return self.process.fuse.client_id

    @rule(count=st.integers(1, 15), actor=st.sampled_from(ACTORS))
    def submit(self, count: int, actor: str) -> None:
        for _ in range(count):
            record = TraceStep(event_id="", ts=NOW_US + self.next_number, actor=actor, kind=StepKind.PLAN)
            self.submitted.setdefault((self.client, actor), []).append(self.next_number)
            self.next_number += 1
            self.process.runtime.publisher.submit(RecordEvent(record))

    @rule(steps=st.integers(1, 4))
    def work(self, steps: int) -> None:
        self.process.deliver(steps)

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.process.clock.sleep(seconds)
        self.process.deliver(1)

    @rule(up=st.booleans())
    def outage(self, up: bool) -> None:
        self.broker.up = up

    @rule(confirms=st.booleans())
    def lose_reports(self, confirms: bool) -> None:
        """What is sent arrives without a report; the connection must break before it counts as lost."""
        if confirms and not self.broker.confirms:
            self.process.runtime.publisher._start_over()
        self.broker.confirms = confirms

    @rule(failing=st.booleans())
    def topic_is_missing(self, failing: bool) -> None:
        self.broker.verdicts = {TRACES: Verdict.RETRY} if failing else {}

    @rule()
    def crash(self) -> None:
        """SIGKILL: memory is gone, files stay."""
        backlog = self.process.runtime.publisher._backlog
        if backlog is not None:
            backlog.abandon()
        self.crashed.add(self.client)
        self.lost[self.client] = self.process.fuse.counts.lost
        self.process = self.start()

    @rule()
    def stop(self) -> None:
        self.process.runtime.publisher.shut_down()
        self.lost[self.client] = self.process.fuse.counts.lost
        self.process = self.start()

    def arrived(self) -> dict[tuple[int, str], dict[int, int]]:
        """Sequence number to event, per client and actor, in the order of the first arrival."""
        decoder = Decoder()
        found: dict[tuple[int, str], dict[int, int]] = {}
        for message in self.broker.log:
            record: Any = decoder.decode(message.value, "TraceStep")
            numbers = found.setdefault((record.client_id, record.actor), {})
            number = record.ts - NOW_US
            assert numbers.setdefault(record.seq, number) == number, "one number, two events"
        return found

    @invariant()
    def in_order(self) -> None:
        for key, events in self.arrived().items():
            assert list(events) == sorted(events), f"out of order: {key}"
            assert list(events.values()) == sorted(events.values())

    @invariant()
    def numbers_fit(self) -> None:
        """A number stands for the event submitted as that many-th: gaps are exactly where something is lost."""
        for key, events in self.arrived().items():
            submitted = self.submitted[key]
            for seq, number in events.items():
                assert submitted[seq] == number

    def teardown(self) -> None:
        self.broker.up = self.broker.confirms = True
        self.broker.verdicts = {}
        self.process.runtime.publisher._start_over()
        for _ in range(60):
            self.process.clock.sleep(31.0)
            self.process.deliver(3)
        self.lost[self.client] = self.process.fuse.counts.lost
        arrived = self.arrived()
        for client in {client for client, _ in self.submitted}:
            gaps = 0
            for actor in ACTORS:
                events = arrived.get((client, actor), {})
                submitted = self.submitted.get((client, actor), [])
                # A crash may cost the end, which was in memory only; everything before it must be there or counted.
                upto = len(submitted) if client not in self.crashed else max(events, default=-1) + 1
                gaps += upto - len(events)
            assert gaps <= self.lost[client]
            if client not in self.crashed:
                assert gaps == self.lost[client]
        self.in_order()
        self.numbers_fit()
        self.process.runtime.publisher.shut_down()
        shutil.rmtree(self.root)


PublisherLife.TestCase.settings = settings(
    max_examples=150, derandomize=True, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestPublisherLife = PublisherLife.TestCase
