"""The limit: a bare consume loop with the worker's own consumer and batch, that looks at every record.

Run as `python -m benchmarks._bare BOOTSTRAP TOPIC GROUP RECORDS`; it ends on SIGTERM. RECORDS is what it asks for at a
time: the worker's batch, or the pieces in which the worker consumes it.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from fuseboard_streams.worker.clients import Clients
from fuseboard_streams.worker.settings import WorkerSettings

if TYPE_CHECKING:
    from types import FrameType

COMMIT_INTERVAL_S = 0.1
"""Its commits are how its progress is measured, as every contender's is."""


def run(bootstrap: str, topic: str, group: str, records: int) -> None:
    """Consume until asked to stop, touching the value of every record and its length."""
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    settings = WorkerSettings(bootstrap=bootstrap, group=group)
    consumer = Clients(settings).consumer()
    consumer.subscribe([topic], on_assign=_from_the_start)
    seen, committed_at = 0, time.monotonic()
    while not stopping:
        for message in consumer.consume(records, settings.idle_wait_ms / 1e3):
            error = message.error()
            if error is None:
                seen += len(message.value() or b"")
            elif error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
        if time.monotonic() - committed_at >= COMMIT_INTERVAL_S:
            committed_at = time.monotonic()
            _commit(consumer)
    consumer.close()
    print(f"{seen} bytes")


def _from_the_start(consumer: Consumer, partitions: list[TopicPartition]) -> None:
    consumer.assign([TopicPartition(each.topic, each.partition, OFFSET_BEGINNING) for each in partitions])


def _commit(consumer: Consumer) -> None:
    reached = [each for each in consumer.position(consumer.assignment()) if each.offset >= 0]
    if reached:
        consumer.commit(offsets=reached, asynchronous=True)


if __name__ == "__main__":
    run(*sys.argv[1:4], records=int(sys.argv[4]))
