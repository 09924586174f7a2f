"""The demo from start to end."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import sys
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from fuseboard import Fuseboard, Settings
from fuseboard.runtime import Runtime
from fuseboard_schemas.errors import FuseboardError, UnreachableError
from fuseboard_schemas.keys import actor_key, partition_for
from fuseboard_schemas.topics import TOPICS
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.demo import servers as stage
from fuseboard_streams.demo.agents import Agent, Pace
from fuseboard_streams.demo.airline import Outage
from fuseboard_streams.demo.evidence import Peak, Rerun, rerun
from fuseboard_streams.demo.moments import Acknowledged, Applied, Committed, Moment
from fuseboard_streams.demo.recording import Recording, load_recording
from fuseboard_streams.demo.screen import Screen
from fuseboard_streams.demo.story import TENANT, Story, percent, short
from fuseboard_streams.demo.topics import Reader, Watcher, find_deciding_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from fuseboard_schemas.records import BreakerCommand
    from fuseboard_streams.demo.servers import Servers

ACTOR: Final = "tau-airline/gpt-4o/trial0"
TOOL: Final = "get_reservation_details"
RATE: Final = 0.8
SEED: Final = 7
HISTORY_SPEED: Final = 160.0
OUTAGE_SPEED: Final = 100.0
AFTER_SPEED: Final = 50.0
KEEP_SPEED: Final = 5.0
LIMIT_S: Final = 56.0
"""The whole run ends within a minute, whatever happens."""
OTHERS_SPEED: Final = 30.0
PASSES: Final = 3
"""Calls to see pass after the recovery."""
CORE: Final = CoreSettings(breaker=BreakerParams(base_cooldown_us=15 * SECOND))
"""As delivered, but for the shortest cooldown that a worker keeps: one can sit through it."""
_READY_S: Final = 30.0
_FLUSH_S: Final = 10.0
_TURN_S: Final = 0.1


def run_demo(*, bootstrap: str | None, keep: bool, as_json: bool) -> int:
    """Run the demo.

    Args:
        bootstrap: Brokers to use; None starts an embedded one.
        keep: Leave everything running until Ctrl-C.
        as_json: Print one object instead of the story.

    Returns:
        0 if the right breaker tripped, refused and recovered and no other did, else 1.

    Raises:
        FuseboardError: Something could not be started or reached, or the worker died.
    """
    recording = load_recording()
    screen = Screen(quiet=as_json)
    screen.title()
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_terminated_like_interrupted())
        with screen.waiting("setting up"):
            servers = stack.enter_context(stage.running(bootstrap, CORE, screen.update))
            demo = stack.enter_context(Demo(servers, recording, screen))
            demo.wait_until_ready()
        setup_s = time.monotonic() - started
        screen.line(
            "set up",
            f"{'embedded' if servers.embedded else 'your'} broker at {servers.connection.bootstrap}, {len(TOPICS)} "
            f"topics, a worker process with a cooldown of {CORE.breaker.base_cooldown_us / SECOND:.0f} s "
            f"instead of 30 s; took {setup_s:.1f} s",
        )
        demo.play()
        with screen.waiting("reading all calls back"):
            facts = demo.finish(setup_s)
        screen.summary(demo.story, facts, CORE)
        if as_json:
            print(json.dumps(facts), flush=True)
        screen.next_steps(servers if keep else None, demo.story)
        if keep:
            if as_json:
                print(f"Still running at {servers.connection.bootstrap}; Ctrl-C ends it.", file=sys.stderr)
            demo.keep()
        return 0 if demo.story.succeeded else 1


class Demo:
    """The agents and the watcher on running servers, as a context manager.

    Args:
        servers: Broker and worker.
        recording: What the agents do.
        screen: Where to tell it.
    """

    def __init__(self, servers: Servers, recording: Recording, screen: Screen) -> None:
        self._servers = servers
        self._recording = recording
        self._screen = screen
        self._moments: queue.SimpleQueue[Moment] = queue.SimpleQueue()
        self._reader = Reader(servers.connection, stage.PARTITIONS)
        self._pace, self._others = Pace(HISTORY_SPEED), Pace(HISTORY_SPEED)
        self._outage = Outage(TOOL, ACTOR, RATE, SEED)
        self._began = 0.0
        self._stack = contextlib.ExitStack()
        self.story = Story(ACTOR, TOOL)
        self.agents: list[Agent] = []
        self.fuse: Fuseboard | None = None

    def __enter__(self) -> Demo:
        with contextlib.ExitStack() as stack:
            connection = self._servers.connection
            tell = self._moments.put
            # No disk spool: what is left at the end goes with the broker.
            settings = Settings(
                actor=ACTOR,
                bootstrap=connection.bootstrap,
                prefix=connection.prefix,
                kafka=dict(connection.kafka),
                spool_dir="",
            )
            self.fuse = stack.enter_context(Fuseboard.of(Runtime(settings)))
            self.fuse.on_command(self._in_force)
            clients = {actor: self.fuse.as_actor(actor) for actor in self._recording.traces}
            pause_s = self._recording.pause_s
            self.agents = [
                Agent(client, self._pace if actor == ACTOR else self._others, self._outage, tell, pause_s)
                for actor, client in clients.items()
            ]
            self._clients = clients
            stack.enter_context(Watcher(self._reader, self._servers.names, stage.PARTITIONS, tell))
            stack.enter_context(stage.LogReader(self._servers.worker.log, self._logged))
            stack.callback(self._stop_agents)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _stop_agents(self) -> None:
        for pace in (self._pace, self._others):
            pace.stopped.set()
        for agent in self.agents:
            agent.join(5.0)

    def _in_force(self, command: BreakerCommand) -> None:
        self._moments.put(Applied(command.breaker_id, command.epoch, time.time_ns() // 1000))

    def _logged(self, entry: dict[str, Any]) -> None:
        if entry.get("event") == "ack_received":
            self._moments.put(Acknowledged(entry["breaker_id"], entry["epoch"], entry["at_us"]))

    def wait_until_ready(self) -> None:
        """Wait until the worker gives signs of life for every actor.

        Raises:
            FuseboardError: It does not in time.
        """
        self._screen.update("waiting for the worker")
        deadline = time.monotonic() + _READY_S
        while not all(client.ready() for client in self._clients.values()):
            self._servers.check()
            if time.monotonic() > deadline:
                raise UnreachableError(
                    f"The worker gave no sign of life within {_READY_S:.0f} s. Is the machine under heavy load? Its "
                    f"log ends with:\n{self._servers.worker.log_tail()}"
                )
            time.sleep(0.02)

    # ------------------------------------------------------------------ the acts

    def play(self) -> None:
        """History, outage, trip, refusals, recovery."""
        self._began = time.monotonic()
        self._screen.begin(_now_us())
        with self._screen.waiting(""):
            if self._history():
                self._break_tool()
                if self._pump(lambda: self.story.enforced, LIMIT_S):
                    self._repair()
                    self._pump(lambda: self.story.passed_after >= PASSES, LIMIT_S)

    def _history(self) -> bool:
        total = self._recording.tool_calls
        self._line(
            "play",
            f"{len(self.agents)} GPT-4o agents, recorded at tau-bench's airline, make their {total:,} tool calls "
            f"through the SDK, {HISTORY_SPEED:.0f} times as fast; tools fail where they failed",
        )
        for agent in self.agents:
            agent.start(self._recording.traces[agent.actor])
        if not self._pump(lambda: not any(agent.working for agent in self.agents), LIMIT_S):
            return False
        calls, failures = (sum(each[i] for each in self.story.calls.values()) for i in (0, 1))
        own, failed = self._recording.calls_of(TOOL)
        tripped = "nothing tripped" if not self.story.strangers else f"{len(self.story.strangers)} tripped"
        self._line("learned", f"{calls:,} calls, {failures} failed; {TOOL}: {own} calls, {failed} failed; {tripped}")
        return True

    def _break_tool(self) -> None:
        self._pace.speed, self._others.speed = OUTAGE_SPEED, OTHERS_SPEED
        self.story.begin_outage(_now_us())
        self._outage.begin()
        text = f"{TOOL} starts to fail in {percent(RATE)} of {short(ACTOR)}'s calls; the agents begin anew"
        self._line("outage", text, "red")
        for agent in self.agents:
            # Only the actor with the broken tool goes on for as long as it takes.
            traces = self._recording.traces[agent.actor]
            agent.start(_for_ever(traces) if agent.actor == ACTOR else traces)

    def _repair(self) -> None:
        self._outage.end()
        self._line("repaired", f"{TOOL} works again, which nobody can know before the cooldown is over", "dim")

    def _pump(self, done: Callable[[], bool], limit_s: float) -> bool:
        """Take in what happens until something is the case; False when the time is up."""
        while not done():
            if time.monotonic() - self._began > limit_s:
                return False
            self._servers.check()
            for agent in self.agents:
                if agent.failure is not None:
                    raise FuseboardError(f"The agent {agent.actor} failed: {agent.failure!r}.") from agent.failure
            with contextlib.suppress(queue.Empty):
                self._take(self._moments.get(timeout=_TURN_S))
        return True

    def _take(self, moment: Moment) -> None:
        before = self.story.trip
        for act in self.story.take(moment):
            self._screen.act(act)
        if self.story.trip is not before and isinstance(moment, Committed):
            # Slower from here, so that one can see every call.
            self._pace.speed = AFTER_SPEED
            self._find_deciding_call(moment)
        calls = sum(each[0] for each in self.story.calls.values())
        self._screen.update(f"{calls:,} calls made, {len(self.story.refusals)} refused")

    def _find_deciding_call(self, trip: Committed) -> None:
        partition = partition_for(actor_key(TENANT, ACTOR), stage.PARTITIONS)
        decided = find_deciding_call(self._reader, self._servers.names.tool_calls, partition, trip.command)
        if decided is not None:
            self._take(decided)

    def _line(self, label: str, text: str, style: str = "") -> None:
        self._screen.line(label, text, style, at_us=_now_us())

    # ------------------------------------------------------------------- the end

    def finish(self, setup_s: float) -> dict[str, Any]:
        """Stop the agents, look at everything once more, show the summary.

        Returns:
            The facts.
        """
        duration_s = time.monotonic() - self._began
        assert self.fuse is not None
        self._stop_agents()
        unconfirmed = self.fuse.flush(_FLUSH_S)
        while not self._moments.empty():
            self._take(self._moments.get())
        again = self._rerun()
        story = self.story
        trip = None if story.trip is None else story.trip.command.event_id
        return {
            "broker": self._servers.broker,
            "events": self.fuse.counts.delivered,
            **story.summary(),
            "tool_calls": again.calls,
            "healthy": [asdict(each) for each in again.peaks if each.failures and not _is_broken(each)],
            "same_trip": [each.event_id for each in again.trips] == [trip],
            "events_lost": unconfirmed + self.fuse.counts.dropped + self.fuse.counts.failed,
            "setup_s": round(setup_s, 2),
            "duration_s": round(duration_s, 2),
        }

    def _rerun(self) -> Rerun:
        stored = self._reader.all_of(self._servers.names.tool_calls)
        return rerun(stored, stage.PARTITIONS, CORE)

    def keep(self) -> None:
        """Let one agent work on, slowly, until Ctrl-C.

        Raises:
            FuseboardError: The worker died.
        """
        self._pace.speed = KEEP_SPEED
        self._pace.stopped.clear()
        for agent in self.agents:
            if agent.actor == ACTOR:
                agent.start(_for_ever(self._recording.traces[agent.actor]))
        try:
            while True:
                self._servers.check()
                with contextlib.suppress(queue.Empty):
                    self._moments.get(timeout=_TURN_S)
        except KeyboardInterrupt:
            return


def _is_broken(peak: Peak) -> bool:
    return (peak.actor, peak.tool) == (ACTOR, TOOL)


def _for_ever(traces: tuple[Any, ...]) -> Iterator[Any]:
    while True:
        yield from traces


def _now_us() -> int:
    return time.time_ns() // 1000


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end us as Ctrl-C does, with everything taken away."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
