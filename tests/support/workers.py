"""Workers under test: their input, the processes, and what they wrote."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import structlog
from confluent_kafka import Consumer, IsolationLevel, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from fuseboard_schemas.codec import Decoder, Encoder
from fuseboard_schemas.keys import actor_key
from fuseboard_schemas.records import Effect, Outcome, ToolCall
from fuseboard_schemas.topics import by_name
from fuseboard_streams.worker import load_settings, run_worker
from fuseboard_streams.worker.shutdown import Shutdown
from fuseboard_streams.worker.transaction import no_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from fuseboard_schemas.registry import Resolver
    from fuseboard_streams.worker.clock import Clock
    from fuseboard_streams.worker.transaction import FaultPoint

T0_US = 1_767_225_600_000_000
DECISIONS = ("signals", "breaker-commands", "dead-letters")
"""Outputs that must not depend on how the work was cut."""
_MAIN = """
import json, sys
from fuseboard_schemas.errors import FuseboardError
from fuseboard_streams.worker import load_settings, run_worker
from tests.support.workers import killer
given = json.loads(sys.argv[1])
kill = given.pop("kill_at", None)
try:
    sys.exit(run_worker(load_settings(overrides=given), **({"fault": killer(*kill)} if kill else {})))
except FuseboardError as error:
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


def killer(step: str, count: int) -> FaultPoint:
    """Kills its own process, as SIGKILL does, at the ``count``-th time of a step."""
    left = count

    def fault(name: str) -> None:
        nonlocal left
        if name == step:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return fault


def calls(count: int, seed: int = 1, actors: int = 12, minutes: float = 40.0) -> list[ToolCall]:
    """Calls of several actors over some stream time; each actor has a tool that fails for a while."""
    rng = random.Random(seed)
    seq: dict[str, int] = {}
    result = []
    for i in range(count):
        number = rng.randrange(actors)
        actor, tool = f"agent-{number}", f"tool-{rng.randrange(3)}"
        share = i / count
        broken = tool == "tool-1" and 0.15 + number / 100 < share < 0.6
        failed = rng.random() < (0.7 if broken else 0.004)
        seq[actor] = seq.get(actor, 0) + 1
        result.append(
            ToolCall(
                event_id=f"e{seed}-{i}",
                ts=T0_US + int(share * minutes * 60_000_000),
                tenant="default",
                actor=actor,
                client_id=number + 1,
                seq=seq[actor],
                trace_id=f"{rng.getrandbits(128):032x}",
                tool=tool,
                effect=Effect.READ,
                outcome=Outcome.ERROR if failed else Outcome.OK,
                duration_ms=20,
            )
        )
    return result


@dataclass
class Bad:
    """A value that is no tool call."""

    value: bytes | None
    key: bytes = b"default/agent-1"


BAD = [
    Bad(None),
    Bad(b""),
    Bad(b"plain text"),
    Bad(b"\x00\x00\x00\x00\x07unknown id"),
    Bad(Encoder("Heartbeat").encode(
        {"worker_id": "w", "group": "g", "shard": 0, "ts": 0, "stream_time": 0, "lag_s": 0.0, "version": "1",
         "rules_version": "1"}
    )),
]  # fmt: skip


def with_bad(good: Sequence[ToolCall], every: int = 97) -> list[ToolCall | Bad]:
    """The calls with bad records among them: undecodable ones, and ones that a field rule refuses."""
    mixed: list[ToolCall | Bad] = []
    for i, call in enumerate(good):
        mixed.append(call)
        if i % every == 0:
            mixed.append(BAD[i // every % len(BAD)])
        if i % every == 7:
            mixed.append(replace(call, event_id=f"{call.event_id}-empty", tool="", seq=None))
        if i % every == 11:
            mixed.append(replace(call, event_id=f"{call.event_id}-ancient", ts=5, seq=None))
    return mixed


def produce(bootstrap: str, topic: str, records: Sequence[ToolCall | Bad]) -> None:
    """Produce tool calls, keyed, and wait until the broker has them."""
    encode = Encoder("ToolCall").encode
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 5})
    for record in records:
        if isinstance(record, Bad):
            producer.produce(topic, record.value, record.key)
        else:
            producer.produce(topic, encode(record), actor_key(record.tenant, record.actor).encode())
        producer.poll(0)
    assert producer.flush(30) == 0


@dataclass(frozen=True)
class Read:
    """A record as it was read back."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int

    def decoded(self, record: str) -> Any:
        """The record in its value."""
        return Decoder().decode(self.value, record)


def read(bootstrap: str, topic: str, partitions: int = 4, *, settled: bool = True) -> list[Read]:
    """Everything committed in a topic, partition by partition.

    A commit returns before its markers are in every log. ``settled`` waits for what is under way now; without it, open
    transactions are left aside.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 20,
        }
    )
    found: list[Read] = []
    try:
        parts = [TopicPartition(topic, number, 0) for number in range(partitions)]
        # The log may go on growing: what is there now counts.
        ends = (
            uncommitted_ends(bootstrap, parts)
            if settled
            else {each.partition: consumer.get_watermark_offsets(each, timeout=10)[1] for each in parts}
        )
        ends = {number: end for number, end in ends.items() if end > 0}
        consumer.assign(parts)
        deadline = time.monotonic() + 60
        while ends:
            assert time.monotonic() < deadline, f"{topic}: {ends} not reached"
            for message in consumer.consume(1000, 0.05):
                error, number, offset = message.error(), message.partition(), message.offset()
                if error is None and offset < ends.get(number, 0):
                    headers = tuple(message.headers() or [])
                    found.append(Read(number, offset, message.key(), message.value(), headers, message.timestamp()[1]))
                elif error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                if offset + (error is None) >= ends.get(number, 0):
                    ends.pop(number, None)
    finally:
        consumer.close()
    return sorted(found, key=lambda each: (each.partition, each.offset))


def uncommitted_ends(bootstrap: str, partitions: list[TopicPartition]) -> dict[int, int]:
    """The ends of logs, open transactions included."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    futures = admin.list_offsets(
        {each: OffsetSpec.latest() for each in partitions}, isolation_level=IsolationLevel.READ_UNCOMMITTED
    )
    return {each.partition: future.result(10).offset for each, future in futures.items()}


def decisions(bootstrap: str, prefix: str, partitions: int = 4) -> dict[str, list[tuple[Any, ...]]]:
    """What the workers decided, in order per partition, without what names a particular run."""
    result = {}
    for name in DECISIONS:
        topic = by_name(name)
        assert topic is not None
        rows = []
        for each in read(bootstrap, prefix + name, partitions):
            record = each.decoded(topic.record) if each.value is not None else None
            if name == "dead-letters":
                record = replace(record, arrival=0)
                rows.append((each.partition, each.key, record))
            else:
                rows.append((each.partition, each.key, record, each.headers))
        result[name] = rows
    return result


def settings_for(bootstrap: str, prefix: str, **more: Any) -> dict[str, Any]:
    """Overrides for a worker of a test."""
    return {
        "bootstrap": bootstrap,
        "prefix": prefix,
        "group": prefix + "workers",
        "http": False,
        "log_format": "json",
        **more,
    }


def run(bootstrap: str, prefix: str, fault: FaultPoint = no_fault, **more: Any) -> list[dict[str, Any]]:
    """Run a worker in this process to the end of its inputs; returns what it logged."""
    capture = structlog.testing.LogCapture()
    log = structlog.wrap_logger(None, processors=[capture])
    given = settings_for(bootstrap, prefix, until_end=True, **more)
    assert run_worker(load_settings(overrides=given), fault=fault, log=log) == 0
    return list(capture.entries)


@dataclass
class WorkerThread:
    """A worker in a thread of this process, stopped at the end of a ``with`` block."""

    bootstrap: str
    prefix: str
    more: dict[str, Any] = field(default_factory=dict)
    fault: FaultPoint = no_fault
    resolver: Resolver | None = None
    clock: Clock | None = None

    def __enter__(self) -> Self:
        self.shutdown = Shutdown()
        self.capture = structlog.testing.LogCapture()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def _run(self) -> None:
        log = structlog.wrap_logger(None, processors=[self.capture])
        settings = load_settings(overrides=settings_for(self.bootstrap, self.prefix, **self.more))
        try:
            run_worker(
                settings,
                fault=self.fault,
                log=log,
                shutdown=self.shutdown,
                resolver=self.resolver,
                clock=self.clock,
            )
        except BaseException as error:
            self.failure = error

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one kind so far."""
        return [dict(each) for each in list(self.capture.entries) if each["event"] == name]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown.request()
        self._thread.join(60)
        assert not self._thread.is_alive()


class WorkerProcess:
    """A worker in a process of its own; its log goes to a file."""

    def __init__(self, bootstrap: str, prefix: str, log: Path, **more: Any) -> None:
        self.log = log
        given = json.dumps(settings_for(bootstrap, prefix, **more))
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, given], stdout=stream, stderr=stream, env={**os.environ}
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one kind so far."""
        found = []
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line)
                if entry.get("event") == event:
                    found.append(entry)
        return found

    def signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self, timeout_s: float = 60.0) -> int:
        """Its exit code."""
        return self.process.wait(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


def until(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> float:
    """Wait for a condition; the seconds it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - started
