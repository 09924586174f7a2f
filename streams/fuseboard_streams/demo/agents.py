"""Agents that make the recorded calls through the SDK, each on a thread of its own."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from fuseboard import ToolBlocked
from fuseboard_schemas.records import Effect, TaskResult
from fuseboard_streams.demo.airline import EFFECTS, AirlineError, ServiceUnavailableError
from fuseboard_streams.demo.moments import Attempt, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fuseboard import Fuseboard
    from fuseboard_streams.demo.airline import Outage
    from fuseboard_streams.demo.moments import Moment
    from fuseboard_streams.demo.recording import Step, Trace


class Pace:
    """How many times faster than recorded the agents work; may change while they do."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.stopped = threading.Event()

    def wait(self, recorded_s: float) -> None:
        """Let recorded time pass."""
        self.stopped.wait(recorded_s / self.speed)


class Agent:
    """One recorded agent.

    Args:
        fuse: Its client.
        pace: How fast it works.
        outage: What goes wrong beyond the recording.
        tell: Takes what happens; called on the agent's thread.
        pause_s: Recorded time between two tasks.
    """

    def __init__(
        self, fuse: Fuseboard, pace: Pace, outage: Outage, tell: Callable[[Moment], None], pause_s: float
    ) -> None:
        self._fuse = fuse
        self._pace = pace
        self._outage = outage
        self._tell = tell
        self._pause_s = pause_s
        # As decorators do at import: from here on the tools' breakers are followed, and known before the first call.
        for tool, effect in EFFECTS.items():
            fuse.tool(effect=effect, name=tool)(self._answer)
        self._thread: threading.Thread | None = None
        self.failure: BaseException | None = None
        """What ended the agent, if it was not the end of its traces."""

    @property
    def actor(self) -> str:
        """Who it is."""
        return self._fuse.actor

    @property
    def working(self) -> bool:
        """Whether it still has something to do."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, traces: Iterable[Trace]) -> None:
        """Work through the traces, on a thread."""
        name = f"agent-{self.actor}"
        self._thread = threading.Thread(target=self._run, args=(traces,), name=name, daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for its end."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, traces: Iterable[Trace]) -> None:
        try:
            for trace in traces:
                if self._pace.stopped.is_set():
                    return
                self._work(trace)
                self._pace.wait(self._pause_s)
        except BaseException as failure:
            self.failure = failure

    def _work(self, trace: Trace) -> None:
        with self._fuse.session(), self._fuse.task(intent="airline support", task_type=trace.task) as task:
            for step in trace.steps:
                if self._pace.stopped.is_set():
                    task.result = TaskResult.ABANDONED
                    return
                if step.tool is None:
                    self._pace.wait(step.seconds)
                    self._fuse.record_model_call("openai", "gpt-4o")
                else:
                    self._call(step.tool, step)
            task.result = TaskResult.SUCCEEDED if trace.solved else TaskResult.FAILED
            task.score = float(trace.solved)

    def _call(self, tool: str, step: Step) -> None:
        ok = True
        try:
            with self._fuse.call(tool, effect=EFFECTS.get(tool, Effect.READ)) as call:
                self._answer(tool, step)
        except ToolBlocked as blocked:
            # A real agent would tell its model; the recorded one goes on with what it did next.
            self._tell(_refused(self.actor, blocked))
            return
        except (AirlineError, ServiceUnavailableError):
            ok = False
        self._tell(Attempt(self.actor, tool, call.ts, ok, call.probe))

    def _answer(self, tool: str, step: Step) -> None:
        """What the tool does: take its time, then answer as recorded, unless it is down."""
        self._pace.wait(step.seconds)
        if self._outage.strikes(self.actor, tool):
            raise ServiceUnavailableError("503 Service Unavailable")
        if step.error is not None:
            raise AirlineError(step.error)


def _refused(actor: str, blocked: ToolBlocked) -> Refused:
    return Refused(
        actor=actor,
        tool=blocked.tool,
        at_us=time.time_ns() // 1000,
        action=str(blocked.action),
        scope=str(blocked.scope or ""),
        breaker_id=blocked.breaker_id or "",
        epoch=blocked.epoch or 0,
        retry_after=blocked.retry_after,
        reason=blocked.reason,
    )
