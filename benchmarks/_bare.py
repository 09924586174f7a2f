"""The limit: a bare consume loop, with the worker's consumer settings and batch, that looks at every record.

Run as `python -m benchmarks._bare BOOTSTRAP TOPIC GROUP [CONSUMER_SETTINGS_JSON]`; it ends on SIGTERM.
"""

from __future__ import annotations

import json
import signal
import sys
from types import FrameType

from confluent_kafka import Consumer, KafkaException

BATCH = 20_000
"""Records per call of consume, as in the worker."""

WAIT_S = 0.05
"""Longest wait of one call, as in the worker."""


def run(bootstrap: str, topic: str, group: str, settings: dict[str, str]) -> None:
    """Consume until asked to stop, touching the value and its length of every record."""
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            # Its commits are how its progress is measured, as every contender's is; the client makes them aside.
            "enable.auto.commit": True,
            "auto.commit.interval.ms": 100,
            **settings,
        }
    )
    consumer.subscribe([topic])
    seen = 0
    while not stopping:
        for message in consumer.consume(BATCH, WAIT_S):
            error = message.error()
            if error is not None:
                raise KafkaException(error)
            value = message.value()
            seen += len(value) if value is not None else 0
    consumer.close()
    print(f"{seen} bytes")


if __name__ == "__main__":
    run(*sys.argv[1:4], json.loads(sys.argv[4]) if len(sys.argv) > 4 else {})
