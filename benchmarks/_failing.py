"""Tools that fail everywhere all the time: in every partition a breaker is always about to trip."""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING

from confluent_kafka import Producer

from fuseboard.envelope import Enveloper
from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.keys import actor_key, partition_for
from fuseboard_schemas.records import DeniedBy, Effect, Outcome, ToolCall
from fuseboard_schemas.topics import TopicNames

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

CALLS_PER_VICTIM = 40
"""Failing calls of one actor before another takes its place: a cold one trips after fewer."""


class FailingActors:
    """A thread that publishes, for every partition and in each round, one failing call of an actor at home there.

    Args:
        bootstrap: the cluster.
        prefix: of the topics.
        partitions: of the topics.
        pace_s: time between two rounds.
    """

    def __init__(self, bootstrap: str, prefix: str, partitions: int, pace_s: float) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 0})
        self._wrap = Enveloper(TopicNames(prefix), Encoder).wrap
        self._partitions = partitions
        self._pace_s = pace_s
        self._client = secrets.randbits(63)
        self._next = 0
        self._spare: dict[int, list[str]] = {number: [] for number in range(partitions)}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="failing actors", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self._producer.flush(10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            victims = [self._victim(number) for number in range(self._partitions)]
            for seq in range(1, CALLS_PER_VICTIM + 1):
                for actor in victims:
                    self._fail(actor, seq)
                self._producer.poll(0)
                if self._stopping.wait(self._pace_s):
                    return

    def _victim(self, partition: int) -> str:
        """An actor that has not failed before and whose home is `partition`."""
        while not self._spare[partition]:
            name = f"victim_{self._next:08d}"
            self._next += 1
            self._spare[partition_for(actor_key("default", name), self._partitions)].append(name)
        return self._spare[partition].pop(0)

    def _fail(self, actor: str, seq: int) -> None:
        trace, span = secrets.token_hex(16), secrets.token_hex(8)
        call = ToolCall(
            event_id=secrets.token_hex(16),
            ts=time.time_ns() // 1000,
            tenant="default",
            actor=actor,
            client_id=self._client,
            seq=seq,
            trace_id=trace,
            span_id=span,
            tool="failing.operation",
            effect=Effect.READ,
            outcome=Outcome.ERROR,
            denied_by=DeniedBy.NONE,
            error_type="Outage",
            duration_ms=12,
        )
        message = self._wrap(call)
        partition = partition_for(message.key, self._partitions)
        self._producer.produce(message.topic, message.value, message.key, partition, headers=list(message.headers))
