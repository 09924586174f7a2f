"""What all clients of one process share: settings, clocks, ids, view, gate, publisher, follower."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from fuseboard.arguments import ArgumentHasher
from fuseboard.context import Ids
from fuseboard.envelope import Enveloper, RecordEvent
from fuseboard.gate import Gate, OnStale, Slot
from fuseboard.imports import importing
from fuseboard.publisher import Limits, Publisher
from fuseboard.staleness import Unguarded
from fuseboard.view import View
from fuseboard_schemas.records import Effect, Outcome, StepKind, TraceStep
from fuseboard_schemas.topics import TopicNames

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard.backlog import Backlog
    from fuseboard.calls import Call
    from fuseboard.envelope import ActorRecord
    from fuseboard.follower import Follower
    from fuseboard.settings import Settings
    from fuseboard.transport import Transport
    from fuseboard_schemas.codec import Encoder
    from fuseboard_schemas.records import BreakerCommand

log = logging.getLogger("fuseboard")

_WAIT_STEP_S = 0.01


def wall_clock_us() -> int:
    """The wall clock, microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


class Runtime:
    """The machinery behind one or more :class:`fuseboard.Fuseboard` objects.

    Args:
        settings: Everything that can be set.
        clock: Monotonic clock in seconds.
        wall_us: Wall clock in microseconds since 1970.
        ids: Source of random identifiers.
        sleep: Waits on an agent's thread, only before the first catch-up, and when it closes before that.
        transport: Makes the connection that events go out on; by default to Kafka.
        follow: Whether to read breaker commands and heartbeats from Kafka.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_us: Callable[[], int] = wall_clock_us,
        ids: Ids | None = None,
        sleep: Callable[[float], None] = time.sleep,
        transport: Callable[[], Transport] | None = None,
        follow: bool = True,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.wall_us = wall_us
        self.sleep = sleep
        self.ids = Ids() if ids is None else ids
        self.topics = TopicNames(settings.prefix)
        self.view = View(settings.stale_after_s)
        self.gate = Gate(self.view, wall_us)
        self.hasher = ArgumentHasher(settings.args_hash_key)
        self._make_transport = self._kafka_transport if transport is None else transport
        self.publisher = Publisher(
            Limits(
                queue_events=settings.queue_events,
                memory_events=settings.memory_events,
                memory_bytes=settings.memory_bytes,
                spool_after_s=settings.spool_after_s,
                linger_s=settings.linger_s,
            ),
            enveloper=lambda: Enveloper(self.topics, _encoder),
            transport=self._make_transport,
            backlog=self._backlog,
            clock=clock,
            client_id=self.ids.client_id(),
            new_id=self.ids.event_id,
        )
        self._follow = follow and settings.enabled
        self.listeners: list[Callable[[BreakerCommand], None]] = []
        self._follower: Follower | None = None
        self._lock = threading.Lock()
        self._unguarded = Unguarded(
            self.gate,
            clock,
            grace_s=settings.ready_timeout_s,
            interval_s=settings.warning_interval_s,
            publish=self._record_warning,
        )
        self._slots: dict[tuple[str, str, Effect, OnStale], Slot] = {}
        self._since: dict[str, float] = {}
        self.closed = self._told_closed = False
        if settings.enabled:
            _runtimes.add(self)

    def slot(self, actor: str, tool: str, effect: Effect, on_stale: OnStale) -> Slot:
        """The gate's place for one tool of one actor; registers both with the view."""
        key = (actor, tool, effect, on_stale)
        slot = self._slots.get(key)
        if slot is None:
            tenant = self.settings.tenant
            since = self._since.setdefault(actor, self.clock())
            slot = Slot(tenant, actor, tool, effect, on_stale, self.view.freshness(tenant, actor), since)
            self.view.register(tenant, actor, tool)
            self._slots[key] = slot
        self.start_following()
        return slot

    def register_actor(self, actor: str) -> None:
        """Follow an actor's breakers before it has any tool."""
        self._since.setdefault(actor, self.clock())
        self.view.freshness(self.settings.tenant, actor)
        self.view.register(self.settings.tenant, actor, None)
        self.start_following()

    def start_following(self) -> None:
        """Start the thread that reads breaker commands, unless it runs."""
        if self._follow and self._follower is None:
            with self._lock:
                self._start_follower()

    def _start_follower(self) -> None:
        if self._follower is not None or self.closed:
            return
        with importing():
            from fuseboard.follower import Follower

        follower = Follower(
            self.settings,
            self.topics,
            self.view,
            self.publisher,
            clock=self.clock,
            wall_us=self.wall_us,
            listeners=self.listeners,
            each_turn=self._unguarded.settle,
        )
        self._unguarded.begin()
        if follower.start():
            self._follower = follower

    def record_call(self, call: Call) -> None:
        """Publish an attempt that has ended."""
        context = call.context
        if context is not None and context.task is not None:
            context.task.add_call(call.started)
        if self.settings.enabled:
            self.publisher.submit(call)
            if self.closed:
                self._tell_closed(call)

    def _tell_closed(self, call: Call) -> None:
        if not self._told_closed:
            self._told_closed = True
            log.warning("%s was called after close(): from then on calls are not recorded.", call.tool)

    def record(self, record: ActorRecord) -> None:
        """Publish a record of an actor."""
        if self.settings.enabled:
            self.publisher.submit(RecordEvent(record))

    def warn_stale(self, call: Call) -> None:
        """A call was let through although the control plane is stale: say so, at most once per interval."""
        self._unguarded.let_through(call)

    def _record_warning(self, call: Call, summary: str) -> None:
        self.record(
            TraceStep(
                event_id="",
                ts=self.wall_us(),
                tenant=call.tenant,
                actor=call.actor,
                trace_id=call.trace_id,
                span_id=self.ids.span_id(),
                session_id=None if call.context is None else call.context.session_id,
                task_id=None if call.context is None else call.context.task_id,
                kind=StepKind.WARNING,
                outcome=Outcome.OK,
                summary=summary,
            )
        )

    def close(self, timeout: float) -> int:
        """Flush and stop all threads; returns the number of events that Kafka did not confirm.

        A process that ends before it could hear whether there is a worker waits for that, as long as it would for any,
        but for no more than half of the time that it has.
        """
        started, heard_here = self.clock(), self._follower is not None and self._follower.runs_here()
        deadline = started + timeout
        # A listener that closes does so on the thread that would hear it.
        while self._unguarded.settle() and not heard_here and self.clock() < started + timeout / 2:
            self.sleep(_WAIT_STEP_S)
        self._unguarded.give_up()
        left = max(0.0, deadline - self.clock())
        with self._lock:
            self.closed = True
            follower, self._follower = self._follower, None
        if follower is not None:
            follower.stop()
        # Nobody listens any more: what was a sign of life must not be taken for one in the seconds to come.
        self.view.silence(self.clock())
        _runtimes.discard(self)
        kept = self.publisher.close(left)
        if kept:
            where = self.settings.spool_root()
            fate = "they are lost" if where is None else f"they wait in {where} for the next process on this machine"
            log.warning("Closed with %d events that Kafka has not confirmed: %s.", kept, fate)
        return kept

    def after_fork(self) -> None:
        """Start anew in a forked child."""
        self.ids.reseed()
        self._lock = threading.Lock()
        self.view.after_fork()
        self.gate.after_fork()
        self._unguarded.after_fork()
        self.publisher.after_fork(self.ids.client_id())
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.abandon()  # A child that never calls a tool gets no thread: the next decision starts it.

    def _backlog(self) -> Backlog:
        from fuseboard.backlog import Backlog

        settings = self.settings
        client = self.publisher.client_id & 0xFFFF_FFFF_FFFF_FFFF
        return Backlog(
            settings.spool_root(),
            # Oldest first when sorted by name, and unique even if two processes start in the same microsecond.
            f"{self.wall_us():020d}-{client:016x}",
            limit_bytes=settings.spool_bytes,
            segment_bytes=settings.spool_segment_bytes,
            sync=settings.spool_sync,
        )

    def _kafka_transport(self) -> Transport:
        from fuseboard.kafka import KafkaTransport

        return KafkaTransport(self.settings)


def _encoder(record_name: str) -> Encoder:
    from fuseboard_schemas.codec import Encoder

    return Encoder(record_name)


_runtimes: set[Runtime] = set()


def _after_fork_in_child() -> None:
    for runtime in list(_runtimes):
        runtime.after_fork()


def _at_exit() -> None:
    for runtime in list(_runtimes):
        if not runtime.closed:
            runtime.close(runtime.settings.close_timeout_s)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
