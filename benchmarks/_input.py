"""The input of the draining benchmarks: our topics, and the tool calls written to theirs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks._contenders import CORES, Input
from benchmarks._harness import console
from benchmarks._produce import write
from fuseboard_schemas.topics import TOPICS, TopicNames

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks._events import Workload
    from benchmarks._kafka import Cluster

PREFIX = "bench."
"""What the benchmarks' topics start with."""

PARTITIONS = 4 * CORES
"""Partitions of every topic."""


def create_topics(cluster: Cluster, prefix: str = PREFIX, partitions: int = PARTITIONS) -> None:
    """Create those of our topics that are not there, as `fuseboard topics apply` would."""
    names = TopicNames(prefix)
    cluster.create({names.of(topic): topic.config for topic in TOPICS}, partitions)


def remove_outputs(cluster: Cluster, prefix: str = PREFIX, partitions: int = PARTITIONS) -> None:
    """Give every topic but the tool calls anew: a worker that starts now has no state, and nothing to add to."""
    names = TopicNames(prefix)
    cluster.delete([names.of(topic) for topic in TOPICS if names.of(topic) != names.tool_calls])
    create_topics(cluster, prefix, partitions)


def ending_now(workload: Workload) -> int:
    """A start of event time with which `workload` has ended when it is written: no event comes from the future."""
    return int((time.time() - workload.events / workload.events_per_s - 1.0) * 1e6)


def prepare(cluster: Cluster, workload: Workload, logs: Path, prefix: str = PREFIX) -> Input:
    """Create the topics and write `workload` to the tool calls.

    Returns:
        The topic to drain.
    """
    create_topics(cluster, prefix)
    topic = TopicNames(prefix).tool_calls
    console.print(f"[dim]writing {workload.events:,} events of {workload.actors:,} actors[/dim]")
    seconds = write(cluster, workload, topic, PARTITIONS, logs)
    console.print(f"[dim]  written in {seconds:.0f} s[/dim]")
    return Input(cluster, topic, PARTITIONS, workload.events, prefix)
