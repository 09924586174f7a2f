"""Measures what guarding a tool costs the agent: the gate's decision, and a whole guarded call beside a bare one.

    python benchmarks/gate.py --json

The client is the production one with its publisher's thread running and everything recorded; only the broker is
replaced by one in memory that confirms at once, because no network is on the path that is measured. The view holds a
hundred open breakers of other tools of the same actor. Calls come in bursts with pauses, as an agent's do; each is
timed alone, and what the two readings of the clock cost is in every figure, the bare call's included.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import click

from benchmarks._harness import Report, Target, emit, interleave, median_of, options, percentile
from fuseboard import Effect, Fuseboard, Settings
from fuseboard.runtime import Runtime
from fuseboard.transport import Verdict
from fuseboard_schemas.keys import breaker_id
from fuseboard_schemas.records import (
    Action,
    BreakerCommand,
    BreakerState,
    Cause,
    Mode,
    ModelAccess,
    RunAccess,
    Scope,
    Severity,
    ToolAccess,
    WriteAccess,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._harness import Measured
    from fuseboard.transport import Message

TARGETS = {"decision_us_median": Target(at_most=2.0), "guarded_us_median": Target(at_most=15.0)}
"""The lines of this benchmark."""

ACTOR = "support_agent"
BREAKERS = 100
BURST = 100
PAUSE_S = 0.002
NS_PER_US = 1000.0


class ConfirmingTransport:
    """A broker in memory that confirms everything at the next poll."""

    def __init__(self) -> None:
        self._reports: list[Callable[[Verdict, str], None]] = []

    def send(self, message: Message, report: Callable[[Verdict, str], None]) -> bool:
        """Take a message."""
        self._reports.append(report)
        return True

    def poll(self, timeout: float) -> None:
        """Confirm all there is."""
        reports, self._reports = self._reports, []
        for report in reports:
            report(Verdict.DELIVERED, "")

    def close(self) -> None:
        """Nothing to free."""

    def abandon(self) -> None:
        """Nothing to forget."""


def open_breaker(number: int) -> BreakerCommand:
    """The command of an open breaker of a tool that is not called."""
    tool = f"elsewhere.{number}"
    return BreakerCommand(
        breaker_id=breaker_id(Scope.ACTOR_TOOL, "default", actor=ACTOR, tool=tool),
        epoch=1,
        ts=0,
        tenant="default",
        scope=Scope.ACTOR_TOOL,
        actor=ACTOR,
        tool=tool,
        state=BreakerState.OPEN,
        action=Action.DISABLE_TOOL,
        model=ModelAccess.ANY,
        writes=WriteAccess.FREE,
        tool_access=ToolAccess.OFF,
        run=RunAccess.ON,
        mode=Mode.ENFORCE,
        severity=Severity.TICKET,
        cause=Cause.TRIP,
        reason="open",
        rule="tool-failing",
        rules_version="",
        since=0,
    )


def tool(order_id: str) -> str:
    """What is called."""
    return order_id


class Guarded:
    """A client that is ready to be measured."""

    def __init__(self) -> None:
        self.runtime = Runtime(Settings(actor=ACTOR, spool_dir=""), transport=ConfirmingTransport, follow=False)
        self.fuse = Fuseboard.of(self.runtime)
        self.tool = self.fuse.tool(effect=Effect.WRITE, name="refund")(tool)
        view = self.runtime.view
        for number in range(BREAKERS):
            view.register("default", ACTOR, f"elsewhere.{number}")
            command = open_breaker(number)
            view.apply(command.breaker_id, command, 0, catching_up=False)
        view.reached_end(0, view.interests)
        view.freshness("default", ACTOR).until = float("inf")


def timed(call: Callable[[], object], count: int) -> list[int]:
    """Nanoseconds of each of `count` calls, in bursts."""
    clock = time.perf_counter_ns
    taken = []
    for _ in range(count // BURST):
        for _ in range(BURST):
            start = clock()
            call()
            taken.append(clock() - start)
        time.sleep(PAUSE_S)
    return taken


def measured(name: str, taken: list[int]) -> dict[str, float]:
    """Median and 99th percentile in microseconds."""
    return {
        f"{name}_us_median": median(taken) / NS_PER_US,
        f"{name}_us_p99": percentile(taken, 99) / NS_PER_US,
    }


def run_bare(events: int, _: int) -> Measured:
    """The function itself."""
    return measured("bare", timed(lambda: tool("42"), events))


def run_decision(guarded: Guarded, events: int, _: int) -> Measured:
    """The gate's decision alone."""
    decide, clock = guarded.runtime.gate.decide, guarded.runtime.clock
    (slot,) = (slot for key, slot in guarded.runtime._slots.items() if key[1] == "refund")
    now = clock()
    return measured("decision", timed(lambda: decide(slot, None, now), events))


def run_guarded(guarded: Guarded, events: int, _: int) -> Measured:
    """A whole guarded call inside a session, published."""
    before = guarded.fuse.counts.lost
    with guarded.fuse.session():
        start = time.process_time()
        taken = timed(lambda: guarded.tool("42"), events)
        guarded.fuse.flush(60.0)
        cpu = time.process_time() - start
    lost = guarded.fuse.counts.lost - before
    return measured("guarded", taken) | {"cpu_us_per_call": cpu / len(taken) * 1e6, "lost": float(lost)}


@click.command()
@options(events=50_000)
def main(events: int, repetitions: int, as_json: bool, check: bool) -> None:
    """What guarding a tool costs the agent."""
    guarded = Guarded()
    contenders = {
        "bare": partial(run_bare, events),
        "decision": partial(run_decision, guarded, events),
        "guarded": partial(run_guarded, guarded, events),
    }
    for warm_up in contenders.values():
        warm_up(0)
    runs = interleave(contenders, repetitions)
    guarded.fuse.close()
    metrics = {
        name: median_of(runs, name.partition("_")[0], name)
        for name in (
            "decision_us_median",
            "decision_us_p99",
            "guarded_us_median",
            "guarded_us_p99",
            "bare_us_median",
            "bare_us_p99",
        )
    }
    metrics["cpu_us_per_call"] = median_of(runs, "guarded", "cpu_us_per_call")
    emit(
        Report(
            name="gate",
            metrics=metrics,
            runs=runs,
            parameters={"events": events, "open_breakers": BREAKERS, "burst": BURST},
            targets=TARGETS,
            notes=[
                "guarded_us is the whole call, the tool's own time included; the overhead is less by bare_us.",
                "cpu_us_per_call is the CPU time of the process per guarded call, the publisher's thread included.",
            ],
        ),
        as_json=as_json,
        check=check,
    )


if __name__ == "__main__":
    main()
