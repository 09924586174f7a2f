"""An agent whose tools fail, one after the other, through the real SDK: each is called until its gate refuses it.

Run by latency.py as `python -m benchmarks._victims JSON`; prints one JSON line per refused tool.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import asdict, dataclass

from fuseboard import Effect, Fuseboard, ToolBlocked
from fuseboard_schemas.keys import breaker_id
from fuseboard_schemas.records import Scope

READY_S = 60.0
"""Longest wait for the control plane's first sign of life."""

BLOCKED_S = 30.0
"""Longest time a failing tool may go unrefused."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the agent is asked to do.

    Attributes:
        bootstrap: the cluster.
        prefix: of the topics.
        actors: whose tools fail, in turn; in different partitions if their names say so.
        samples: how many tools fail.
        pace_s: time between two calls of a failing tool.
        seed: chooses the pauses between tools.
    """

    bootstrap: str
    prefix: str
    actors: list[str]
    samples: int
    pace_s: float
    seed: int


class Outage(Exception):
    """What the tools raise."""


def fail_until_refused(fuse: Fuseboard, actor: str, tool: str, pace_s: float) -> int:
    """Call a tool that always fails until it is refused; each call is a trace of its own, so each failure counts.

    Returns:
        The wall clock at the first refusal, microseconds since 1970.

    Raises:
        TimeoutError: it is not refused within `BLOCKED_S`.
    """
    deadline = time.monotonic() + BLOCKED_S
    while time.monotonic() < deadline:
        try:
            with fuse.trace(), fuse.call(tool, effect=Effect.READ, actor=actor):
                raise Outage
        except Outage:
            time.sleep(pace_s)
        except ToolBlocked:
            return time.time_ns() // 1000
    raise TimeoutError(f"{tool} was not refused within {BLOCKED_S:g} s")


def run(job: Job) -> None:
    """Break every tool in turn and print when each was refused."""
    pauses = random.Random(job.seed)
    with Fuseboard(actor=job.actors[0], bootstrap=job.bootstrap, prefix=job.prefix, spool_dir="") as fuse:
        for actor in job.actors:
            fuse.acting_as(actor)
        deadline = time.monotonic() + READY_S
        while not fuse.ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the control plane gave no sign of life within {READY_S:g} s")
            time.sleep(0.05)
        for number in range(job.samples):
            actor, tool = job.actors[number % len(job.actors)], f"failing.operation_{number:04d}"
            refused_us = fail_until_refused(fuse, actor, tool, job.pace_s)
            identity = breaker_id(Scope.ACTOR_TOOL, "default", actor=actor, tool=tool)
            print(json.dumps({"breaker_id": identity, "refused_us": refused_us}), flush=True)
            # Tools go bad at any moment of the worker's rounds, not always at the same one.
            time.sleep(pauses.uniform(0.0, 0.1))


def encoded(job: Job) -> str:
    """`job` as the argument of the process."""
    return json.dumps(asdict(job))


if __name__ == "__main__":
    run(Job(**json.loads(sys.argv[1])))
