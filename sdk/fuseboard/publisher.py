"""Gets events to Kafka in order, or keeps them, or counts what it had to give up; never in the agent's way.

The agent's threads only append to a queue. One background thread numbers and encodes events, hands them to the
transport and keeps its own copy of each until the transport confirms it. When the broker is away for too long or memory
is full, those copies and everything after them go to the disk spool, in order, and from there to Kafka, in order, until
the spool is empty again. Only when memory and spool are full are events dropped, at the queue; their sequence numbers
are used up, so that the loss shows as a gap downstream as well as in :class:`Counts`.

The state machine is :meth:`Publisher.step`; the thread does nothing but call it, and tests call it themselves.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fuseboard.entry import Entry
from fuseboard.imports import load
from fuseboard.transport import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard.backlog import Backlog
    from fuseboard.envelope import Counter, Enveloper, Event
    from fuseboard.transport import Message, Transport

log = logging.getLogger("fuseboard.publisher")

_BATCH = 500
_RETRY_FIRST_S = 0.5
_COMPLAIN_EVERY_S = 60.0
_RETRY_MOST_S = 10.0
_BUSY_POLL_S = 0.005
_IDLE_POLL_S = 0.1
_IDLE_S = 1.0
_RENEW_AFTER_S = 60.0


@dataclass(slots=True)
class Counts:
    """What became of the events of this process.

    Attributes:
        accepted: Taken from the agent.
        delivered: Confirmed by Kafka, those of earlier processes' spools included.
        spooled: Written to the disk spool.
        dropped: Lost because queue, memory and spool were full.
        failed: Lost because they could not be encoded, saved at the end, or the broker refused them for good.
    """

    accepted: int = 0
    delivered: int = 0
    spooled: int = 0
    dropped: int = 0
    failed: int = 0

    @property
    def lost(self) -> int:
        """All events that nobody will ever see."""
        return self.dropped + self.failed


@dataclass(frozen=True, slots=True)
class Gap:
    """Stands in the queue where events were dropped."""

    counter: Counter
    count: int


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the publisher may hold, and how patient it is; see :class:`fuseboard.settings.Settings`."""

    queue_events: int
    memory_events: int
    memory_bytes: int
    spool_after_s: float
    linger_s: float


class Publisher:
    """Publishes events from a background thread that starts with the first event.

    Args:
        limits: Bounds.
        enveloper: Encodes records; called on the publisher's thread only.
        transport: Makes the connection; called again after it has failed.
        backlog: The disk spool and the leftovers of earlier processes.
        clock: Monotonic clock in seconds.
        client_id: Identity of this process as a producer.
        new_id: Makes event ids.
    """

    def __init__(
        self,
        limits: Limits,
        enveloper: Callable[[], Enveloper],
        transport: Callable[[], Transport],
        backlog: Callable[[], Backlog],
        clock: Callable[[], float],
        client_id: int,
        new_id: Callable[[], str],
    ) -> None:
        self._limits = limits
        self._make_enveloper = enveloper
        self._make_transport = transport
        self._make_backlog = backlog
        self._clock = clock
        self._new_id = new_id
        self._reset(client_id)

    def _reset(self, client_id: int) -> None:
        self.client_id = client_id
        self.counts = Counts()
        self._queue: deque[Event | Gap] = deque()
        self._dropped: dict[Counter, int] = {}
        self._has_dropped = False
        self._lock = threading.Lock()
        self._progress = threading.Condition()
        self._wake = threading.Event()
        self._asleep = True
        self._thread: threading.Thread | None = None
        self._closing = False
        self._closed = False
        self._enveloper: Enveloper | None = None
        self._transport: Transport | None = None
        self._backlog: Backlog | None = None
        self._window: deque[Entry] = deque()
        self._window_bytes = 0
        self._own_in_window = 0
        self._held: Entry | None = None
        self._unsent: deque[Entry] = deque()
        self._seqs: dict[Counter, int] = {}
        self._retry_at: float | None = None
        self._complain_at = float("-inf")
        self._retry_delay = _RETRY_FIRST_S
        self._last_progress = 0.0
        self._connected_at = 0.0

    # ------------------------------------------------------------ the agent's side

    def submit(self, event: Event) -> None:
        """Take an event; never blocks, never raises."""
        queue = self._queue
        if self._has_dropped or len(queue) >= self._limits.queue_events:
            self._submit_when_full(event)
        else:
            queue.append(event)
        if self._asleep:
            self._rouse()

    def _submit_when_full(self, event: Event) -> None:
        with self._lock:
            counter = event.counter
            if self._closed or len(self._queue) >= self._limits.queue_events:
                self._dropped[counter] = self._dropped.get(counter, 0) + 1
                self._has_dropped = True
                self.counts.dropped += 1
                return
            missing = self._dropped.pop(counter, 0)
            self._has_dropped = bool(self._dropped)
            if missing:
                self._queue.append(Gap(counter, missing))
            self._queue.append(event)

    def _rouse(self) -> None:
        self._asleep = False
        if self._thread is None:
            self._start()
        self._wake.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or self._closing:
                return
            try:
                thread = threading.Thread(target=self._run, name="fuseboard-publisher", daemon=True)
                thread.start()
                self._thread = thread
            except RuntimeError as error:  # The interpreter is shutting down, or there are too many threads.
                log.error("The publisher's thread cannot start: %s. Events stay in memory.", error)

    def flush(self, timeout: float) -> int:
        """Wait until everything is delivered; returns the number of events that are not after ``timeout`` seconds."""
        deadline = self._clock() + timeout
        if self.pending and self._thread is None:
            self._rouse()
        with self._progress:
            while self.pending and not self._closed:
                left = deadline - self._clock()
                if left <= 0:
                    break
                self._wake.set()
                self._progress.wait(min(left, 0.1))
        return self.pending

    def close(self, timeout: float) -> int:
        """Flush, put what is left into the spool, stop the thread; returns the number of events lost or left behind."""
        left = self.flush(timeout)
        with self._lock:
            self._closing = True
            thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=max(1.0, timeout))
        elif thread is None and self.pending and not self._closed:
            # No thread could be started (the interpreter is shutting down): what is left is saved here.
            self.shut_down()
        with self._lock:
            self._closed = self._has_dropped = True
        return left

    @property
    def pending(self) -> int:
        """Events that Kafka has not confirmed; on disk they count as one at least."""
        backlog = self._backlog
        spooled = 1 if backlog is not None and backlog.active else 0
        return len(self._queue) + (self._held is not None) + max(self._own_in_window, spooled)

    def after_fork(self, client_id: int) -> None:
        """Start anew in a forked child: the parent's events, threads, sockets and files are the parent's."""
        transport, backlog = self._transport, self._backlog
        self._reset(client_id)
        if transport is not None:
            transport.abandon()
        if backlog is not None:
            backlog.abandon()

    # ------------------------------------------------------- the publisher's thread

    def _run(self) -> None:
        load()
        while not self._closing:
            try:
                wait = self.step()
            except Exception:
                log.exception("The publisher failed; it goes on with the next event.")
                wait = _RETRY_FIRST_S
            with self._progress:
                self._progress.notify_all()
            if wait > 0:
                self._sleep(wait)
        self.shut_down()
        with self._progress:
            self._progress.notify_all()

    def _sleep(self, wait: float) -> None:
        """Wait for work; while it sleeps, and only then, the agent's threads pay for waking it up."""
        if self._held is not None:  # Nothing can be taken before something is delivered.
            time.sleep(min(wait, _IDLE_POLL_S))
            return
        self._wake.clear()
        self._asleep = True
        if not self._queue:
            self._wake.wait(wait)
        self._asleep = False
        if self._queue and not self._closing:
            # Events come in bursts: waiting a moment for more costs less than another wake-up.
            time.sleep(self._limits.linger_s)

    def step(self) -> float:
        """Do all that can be done now; returns the seconds after which there may be more to do."""
        now = self._clock()
        backlog = self._backlog_now()
        if self._transport is not None:
            self._transport.poll(self._poll_timeout(now))
            self._settle(now, backlog)
        self._renew(now)
        failed = self._retry_at is not None
        if self._retry_at is not None and now >= self._retry_at:
            self._start_over()
            failed = False
        self._take_queue(now, backlog)
        if self._window and now - self._last_progress > self._limits.spool_after_s:
            self._spill(backlog)
        if failed:
            return _IDLE_POLL_S
        self._refill(now, backlog)
        self._send()
        # With something on its way the next poll does the waiting.
        return 0.0 if self._window or (self._queue and self._held is None) else _IDLE_S

    def _poll_timeout(self, now: float) -> float:
        if not self._window or self._retry_at is not None or (self._queue and self._held is None):
            return 0.0
        return _BUSY_POLL_S if now - self._last_progress < 1.0 else _IDLE_POLL_S

    def shut_down(self) -> None:
        """Save what is left to the spool and free everything. The thread calls it; so do tests without a thread."""
        self._closing = True
        backlog = self._backlog_now()
        if self._queue or self._window or self._held is not None:
            self._spill(backlog)
            while self._queue and self._held is None:
                self._take_queue(self._clock(), backlog)
        with self._lock:
            self._closed = self._has_dropped = True
        unsaved = len(self._queue) + (self._held is not None)
        unsaved += sum(1 for entry in self._window if entry.position is None and not entry.done)
        if unsaved:
            self.counts.failed += unsaved
            log.warning("%d events were not delivered and had no room in the spool; they are lost.", unsaved)
        backlog.close()
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _connect(self) -> Transport | None:
        if self._transport is None:
            try:
                self._transport = self._make_transport()
                self._connected_at = self._clock()
            except Exception as error:
                if self._clock() >= self._complain_at:
                    self._complain_at = self._clock() + _COMPLAIN_EVERY_S
                    log.error("%s Events are kept meanwhile.", error)
                self._back_off()
        return self._transport

    def _back_off(self) -> None:
        self._retry_at = self._clock() + self._retry_delay
        self._retry_delay = min(self._retry_delay * 2, _RETRY_MOST_S)

    def _backlog_now(self) -> Backlog:
        if self._backlog is None:
            self._backlog = self._make_backlog()
        return self._backlog

    def _has_room(self) -> bool:
        return len(self._window) < self._limits.memory_events and self._window_bytes < self._limits.memory_bytes

    @property
    def _stuck(self) -> bool:
        """Whether an encoded event is waiting for room."""
        return self._held is not None

    def _take_queue(self, now: float, backlog: Backlog) -> None:
        """Number, encode and place queued events, as long as there is room for them."""
        if self._held is not None:
            entry, self._held = self._held, None
            self._place(entry, now, backlog)
        taken = 0
        while self._queue and not self._stuck and taken < _BATCH:
            item = self._queue.popleft()
            taken += 1
            if isinstance(item, Gap):
                self._seqs[item.counter] = self._seqs.get(item.counter, 0) + item.count
                continue
            message = self._encode(item)
            if message is not None:
                self._place(Entry(message), now, backlog)
        backlog.sync()

    def _place(self, entry: Entry, now: float, backlog: Backlog) -> None:
        """Put an event into memory, or into the spool, or hold it back until one of them has room."""
        if not backlog.active:
            if not self._closing and self._has_room():
                self._admit(entry, now)
                return
            if not self._spill(backlog):
                self._held = entry
                return
        if backlog.append(entry):
            self.counts.spooled += 1
        else:
            self._held = entry

    def _encode(self, event: Event) -> Message | None:
        counter = event.counter
        seq = self._seqs.get(counter, 0)
        self._seqs[counter] = seq + 1
        self.counts.accepted += 1
        try:
            if self._enveloper is None:
                self._enveloper = self._make_enveloper()
            return self._enveloper.wrap(event.build(self.client_id, seq, self._new_id), event.partition)
        except Exception:
            self.counts.failed += 1
            log.exception("An event of %s cannot be encoded; it is lost.", counter)
            return None

    def _admit(self, entry: Entry, now: float) -> None:
        if not self._window:
            self._last_progress = now
        self._window.append(entry)
        self._window_bytes += entry.message.size
        self._own_in_window += not entry.leftover
        self._unsent.append(entry)

    def _send(self) -> None:
        transport = self._connect() if self._unsent else None
        while self._unsent and transport is not None:
            entry = self._unsent[0]
            if not transport.send(entry.message, partial(self._report, entry)):
                return
            self._unsent.popleft()

    def _report(self, entry: Entry, verdict: Verdict, reason: str) -> None:
        if verdict is Verdict.RETRY:
            if self._retry_at is None:
                log.warning("Kafka did not take an event for %s: %s. Trying again.", entry.message.topic, reason)
                self._back_off()
            return
        entry.done = True
        if verdict is Verdict.REFUSED:
            self.counts.failed += 1
            log.error("Kafka refuses an event for %s: %s. It is lost.", entry.message.topic, reason)
            return
        self.counts.delivered += 1
        if self._retry_at is None:
            self._retry_delay = _RETRY_FIRST_S

    def _settle(self, now: float, backlog: Backlog) -> None:
        """Forget what was delivered; advance the spools to where everything before was delivered."""
        window = self._window
        settled = False
        while window and window[0].done:
            entry = window.popleft()
            self._window_bytes -= entry.message.size
            self._own_in_window -= not entry.leftover
            backlog.settle(entry)
            settled = True
        if settled:
            self._last_progress = now
            backlog.commit()

    def _renew(self, now: float) -> None:
        """Give up a connection without an answer for a minute.

        After a broker's restart librdkafka may stay alone for ever, with no address left (confluentinc/librdkafka
        issue 5301).
        """
        if self._window and now - max(self._last_progress, self._connected_at) > _RENEW_AFTER_S:
            self._start_over()

    def _start_over(self) -> None:
        """Replace a connection that failed: a message it gave up on would otherwise arrive behind its successors."""
        if self._transport is not None:
            self._transport.close()
        self._transport = None
        self._retry_at = None
        self._unsent = deque(entry for entry in self._window if not entry.done)

    def _spill(self, backlog: Backlog) -> bool:
        """Copy everything that is in memory to the spool, so that what follows can go behind it."""
        if backlog.active:
            return True
        own = [entry for entry in self._window if not entry.leftover]
        if not backlog.open(sum(entry.message.size for entry in own)):
            return False
        for entry in own:
            if not backlog.append(entry):
                log.error("The spool took only part of the events in memory.")
                break
            self.counts.spooled += 1
        backlog.skip_appended()
        return True

    def _refill(self, now: float, backlog: Backlog) -> None:
        """Move spooled events into the free part of the window."""
        while self._has_room():
            entry = backlog.read()
            if entry is None:
                break
            self._admit(entry, now)
        if 2 * len(self._window) < self._limits.memory_events and 2 * self._window_bytes < self._limits.memory_bytes:
            for entry in backlog.read_leftovers(now, _BATCH):
                self._admit(entry, now)
            backlog.finish_leftover()
