"""Kills a worker with SIGKILL, again and again, and measures when its successor issues its first command.

    python benchmarks/recovery.py --json

Two workers share the partitions under load, and in every partition tools fail all the time, so that a breaker is
always about to trip. One worker is killed; the time runs until a command is visible, read committed, in one of the
partitions that were its own, decided by a call that ended after the kill; and until there is one in each of them.
Then a new worker takes the dead one's place, and when both have shards again the next one is killed.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import random
import time
from dataclasses import dataclass, replace
from statistics import median

import click

from benchmarks._contenders import temporary_folder
from benchmarks._events import Workload
from benchmarks._failing import FailingActors
from benchmarks._harness import Report, Run, Target, console, emit, rounded, values_of
from benchmarks._input import PARTITIONS, create_topics, ending_now
from benchmarks._kafka import Cluster, broker, follow
from benchmarks._processes import ProcessFailed, Started, running
from benchmarks._produce import start_producers, write
from benchmarks._tail import Seen, Tail
from benchmarks._worker import await_ready, command
from fuseboard_schemas.topics import TopicNames
from fuseboard_streams.embedded import free_ports

TARGETS = {"successor_s_max": Target(at_most=8.0)}
"""The lines of this benchmark."""

WORKERS = 2
SETTLED_S = 120.0
"""Longest wait until all workers have shards again."""

SUCCESSOR_S = 120.0
"""Longest wait for the successor's commands."""


@dataclass(slots=True)
class Member:
    """A worker of the group."""

    name: str
    process: Started


class Group:
    """The workers, and who owns what.

    Args:
        cluster: where they run.
        prefix: of the topics.
        folder: for their logs.
        tail: follows their heartbeats and commands.
    """

    def __init__(self, cluster: Cluster, prefix: str, folder: Path, tail: Tail) -> None:
        self._cluster = cluster
        self._folder = folder
        self._names = TopicNames(prefix)
        self._tail = tail
        self._started = 0
        self.members: list[Member] = []

    def add(self) -> Member:
        """Start one more worker."""
        (port,) = free_ports(1)
        name = f"worker-{self._started}"
        self._started += 1
        settings = {"BOOTSTRAP": self._cluster.bootstrap, "PREFIX": self._names.prefix, "HTTP_PORT": str(port)}
        group = self._names.prefix + "group"
        member = Member(name, command(name, self._folder / f"{name}.log", group, settings))
        self.members.append(member)
        await_ready(member.process, port)
        return member

    def owned(self, member: Member) -> set[int]:
        """The shards whose last heartbeat was the member's."""
        owners = {each.partition: each.record.worker_id for each in self._tail.all() if self._is_heartbeat(each)}
        return {shard for shard, owner in owners.items() if owner == member.name}

    def settle(self) -> None:
        """Wait until every shard has a living owner and every member has shards.

        Raises:
            ProcessFailed: that takes longer than `SETTLED_S`.
        """

        def settled(seen: list[Seen]) -> bool:
            recent = time.monotonic() - 2.5
            owners = {each.partition: each.record.worker_id for each in seen if self._is_heartbeat(each, recent)}
            return len(owners) == PARTITIONS and set(owners.values()) == {each.name for each in self.members}

        self._tail.forget()
        if not self._tail.wait_for(settled, SETTLED_S):
            logs = "; ".join(f"{each.name}: {each.process.tail(5)}" for each in self.members)
            raise ProcessFailed(f"the workers did not share the partitions within {SETTLED_S:g} s; {logs}")

    def kill(self, member: Member) -> dict[str, float]:
        """Kill a member and wait for its successor.

        Returns:
            `successor_s` and `all_shards_s`, from the kill until the first and the last of its shards had a command.

        Raises:
            ProcessFailed: a shard had none within `SUCCESSOR_S`.
        """
        lost = self.owned(member)
        self._tail.forget()
        at, wall_us = time.monotonic(), time.time_ns() // 1000
        member.process.kill()
        self.members.remove(member)
        first: dict[int, float] = {}

        def recovered(seen: list[Seen]) -> bool:
            for each in seen:
                if self._is_command(each) and each.partition in lost and each.record.ts > wall_us:
                    first.setdefault(each.partition, each.at - at)
            return first.keys() == lost

        if not self._tail.wait_for(recovered, SUCCESSOR_S):
            silent = sorted(lost - first.keys())
            raise ProcessFailed(
                f"no command in the partitions {silent} within {SUCCESSOR_S:g} s of {member.name}'s end"
            )
        return {"successor_s": min(first.values()), "all_shards_s": max(first.values()), "shards": float(len(lost))}

    def _is_heartbeat(self, seen: Seen, since: float = 0.0) -> bool:
        return seen.topic == self._names.heartbeats and seen.record is not None and seen.at >= since

    def _is_command(self, seen: Seen) -> bool:
        return seen.topic == self._names.breaker_commands and seen.record is not None


def kill_workers(cluster: Cluster, actors: int, rate: int, kills: int, contender: str, seed: int) -> list[Run]:
    """Kill `kills` workers, one after the other, with `actors` actors in the state."""
    prefix = f"bench-recovery-{actors}."
    names = TopicNames(prefix)
    create_topics(cluster, prefix)
    chosen = random.Random(seed)
    load = Workload(rate * 86_400, events_per_s=rate, name="healthy")
    runs: list[Run] = []
    followed = {names.breaker_commands: "BreakerCommand", names.heartbeats: "Heartbeat"}
    with temporary_folder() as folder, Tail(cluster.bootstrap, followed, PARTITIONS) as tail:
        group = Group(cluster, prefix, folder, tail)
        workers = [group.add().process for _ in range(WORKERS)]
        with running(workers):
            _fill(cluster, prefix, actors, folder, workers)
            producers = start_producers(
                cluster.bootstrap, load, names.tool_calls, PARTITIONS, folder, live=True, shares=1
            )
            with running(producers), FailingActors(cluster.bootstrap, prefix, PARTITIONS, 0.02):
                for number in range(kills):
                    group.settle()
                    time.sleep(chosen.uniform(0.0, 1.5))
                    run = Run(contender, number, group.kill(chosen.choice(group.members)))
                    console.print(f"  kill {number + 1}: {run.values['successor_s']:.2f} s")
                    runs.append(run)
                    workers.append(group.add().process)
    return runs


def _fill(cluster: Cluster, prefix: str, actors: int, folder: Path, workers: list[Started]) -> None:
    """Let the workers see every actor's three tools once, if there are more than the background's."""
    load = Workload(actors * 3, actors=actors, tools=3, sweep=True)
    load = replace(load, start_us=ending_now(load))
    topic = TopicNames(prefix).tool_calls
    console.print(f"[dim]filling the state with {actors:,} actors[/dim]")
    write(cluster, load, topic, PARTITIONS, folder)
    follow(cluster, prefix + "group", topic, PARTITIONS, workers, load.events, 1200.0)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--kills", default=10, show_default=True, help="Kills with a thousand actors.")
@click.option("--large-kills", default=3, show_default=True, help="Kills with a million actors.")
@click.option("--actors", default=1_000, show_default=True, help="Actors in the state.")
@click.option("--large-actors", default=1_000_000, show_default=True, help="Actors in the large state.")
@click.option("--rate", default=10_000, show_default=True, help="Background events per second.")
@click.option("--seed", default=1, show_default=True, help="Chooses whom to kill, and when.")
@click.option("--bootstrap", default=None, help="A cluster to use instead of starting Apache Kafka.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--check", is_flag=True, help="Exit 1 if a line is missed.")
def main(
    kills: int,
    large_kills: int,
    actors: int,
    large_actors: int,
    rate: int,
    seed: int,
    bootstrap: str | None,
    as_json: bool,
    check: bool,
) -> None:
    """Kill, measure, report."""
    found: dict[str, float] = {}
    runs: list[Run] = []
    with broker(bootstrap) as address:
        for size, count, suffix in ((actors, kills, ""), (large_actors, large_kills, "_1m")):
            if count:
                made = kill_workers(Cluster(address), size, rate, count, f"{size} actors", seed)
                first, every = (
                    values_of(made, f"{size} actors", "successor_s"),
                    values_of(made, f"{size} actors", "all_shards_s"),
                )
                found[f"successor_s_max{suffix}"] = rounded(max(first))
                found[f"successor_s_median{suffix}"] = rounded(median(first))
                found[f"all_shards_s_max{suffix}"] = rounded(max(every))
                runs += made
    parameters = {
        "actors": actors,
        "large_actors": large_actors,
        "rate": rate,
        "workers": WORKERS,
        "partitions": PARTITIONS,
    }
    notes = [
        "session.timeout.ms is the worker's default, 6 s: most of the time is the broker's wait for the dead member."
    ]
    emit(Report("recovery", found, runs, parameters, TARGETS, notes), as_json=as_json, check=check)


if __name__ == "__main__":
    main()
