"""Writes a workload to its topic, from as many processes as there are cores.

Process p of n writes the partitions that are p modulo n: every one of them in the workload's order.

Run by `write` as `python -m benchmarks._produce JSON`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from confluent_kafka import Producer

from benchmarks._encode import MessageEncoder, Messages
from benchmarks._events import Workload, generate
from benchmarks._processes import ProcessFailed, Started, running

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks._kafka import Cluster

PRODUCER: dict[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 20,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 512_000,
}
"""Settings of a producer that writes a topic as fast as it can; uncompressed, as the SDK writes by default."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one producing process is asked to do.

    Attributes:
        bootstrap: where to.
        topic: the topic.
        partitions: of the topic.
        share: this process's number.
        shares: how many processes there are.
        live: publish at the workload's rate, each event ending when it is published, instead of as fast as possible.
    """

    bootstrap: str
    topic: str
    partitions: int
    share: int
    shares: int
    live: bool = False


def write(
    cluster: Cluster, workload: Workload, topic: str, partitions: int, logs: Path, timeout_s: float = 1200.0
) -> float:
    """Write `workload` to `topic`, which has to be empty.

    Returns:
        How many seconds it took.

    Raises:
        ProcessFailed: a producing process failed, or the topic does not hold what it should afterwards.
    """
    start = time.monotonic()
    producers = start_producers(cluster.bootstrap, workload, topic, partitions, logs)
    with running(producers):
        for producer in producers:
            producer.wait(timeout_s)
    written = sum(cluster.end_offsets(topic, partitions).values())
    if written != workload.events:
        raise ProcessFailed(f"{topic} holds {written:,} records after writing {workload.events:,} to it")
    return time.monotonic() - start


def start_producers(
    bootstrap: str, workload: Workload, topic: str, partitions: int, logs: Path, *, live: bool = False, shares: int = 0
) -> list[Started]:
    """Start the processes that write `workload`; `shares` of them, one per core by default."""
    count = shares or min(os.cpu_count() or 1, partitions)
    jobs = [Job(bootstrap, topic, partitions, share, count, live) for share in range(count)]
    return [
        Started(
            f"producer {job.share}",
            [sys.executable, "-m", "benchmarks._produce", json.dumps({"job": asdict(job), "load": asdict(workload)})],
            logs / f"producer-{job.share}.log",
        )
        for job in jobs
    ]


def produce(job: Job, workload: Workload) -> None:
    """Write this process's share, in order; returns when the broker has it all."""
    encoder = MessageEncoder(workload, job.partitions)
    mine = encoder.partition_of % job.shares == job.share
    producer = Producer({"bootstrap.servers": job.bootstrap, **PRODUCER, **({"linger.ms": 5} if job.live else {})})
    began = time.time()
    for events in generate(workload, chunk=_chunk(workload, live=job.live)):
        if job.live:
            due = began + int(events.index[-1] + 1) / workload.events_per_s
            time.sleep(max(0.0, due - time.time()))
            events = events.at(np.full(len(events), int(time.time() * 1e6), dtype=np.int64))
        _send(producer, job.topic, encoder.encode(events.take(mine[events.actor])))
    left = producer.flush(300)
    if left:
        raise ProcessFailed(f"{left} records could not be written within 300 s")


def _chunk(workload: Workload, *, live: bool) -> int:
    """Live, a chunk is ten milliseconds' worth: events wait for no more than that."""
    return max(1, int(workload.events_per_s / 100)) if live else 50_000


def _send(producer: Producer, topic: str, messages: Messages) -> None:
    send = producer.produce
    rows = zip(messages.partitions, messages.keys, messages.values, messages.headers, strict=True)
    for partition, key, value, headers in rows:
        while True:
            try:
                send(topic, value, key, partition, headers=headers)
                break
            except BufferError:
                producer.poll(0.05)
    producer.poll(0)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    produce(Job(**given["job"]), Workload(**given["load"]))
