"""The breakers of one shard: a state machine driven by trips, probe results and stream time.

```
            trip                      timer: cooldown over
  CLOSED ─────────► OPEN ───────────────────────────────► HALF_OPEN ─┐ next wave: the quota's results are in,
    ▲                ▲                                     │  │  ▲   │ or the wave's time is over
    │                └─ probes fail, do not decide, ───────┘  │  └───┘
    │                   or three waves bring no result        │
    └───────────────────────── probes pass ───────────────────┘
```

There is no clock and no randomness here. Time is the shard's stream time; transitions by time happen only at ticks, on
whole seconds, and take the timer's time as theirs, so that it does not matter how often ticks are called. Jitter is
derived from the breaker's id and epoch.

How many calls a half-open period admits: a period counts at most ``max_probes`` (40) results, and each enforcer
admits at most the wave's quota under each epoch. If no more enforcers act than clients were counted, a wave that ends
because its results are in has admitted no more than it counted, so that

    admitted <= 40 + quota * enforcers + (calls of waves ended by time that brought no counted result)

whatever the delays, the order and the losses. The last term is at most quota * enforcers for each such wave, and
nothing when results come back within their wave. From here a probe that hangs looks like one that was never made.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

from fuseboard_detectors.probes import ProbeTest, ProbeVerdict
from fuseboard_schemas.keys import Target, breaker_id
from fuseboard_schemas.records import Action, BreakerState, Cause, Mode, Recovery, Severity
from fuseboard_streams.core.breaker import Breaker, Evidence, Moment

if TYPE_CHECKING:
    from fuseboard_streams.core.breaker_params import BreakerParams

__all__ = ["Breakers", "ClientsOf", "ceil_second"]

ClientsOf: TypeAlias = Callable[[str, str], int]
"""(tenant, actor) to the clients of that actor seen within ``client_window_us``; the actor is "" for whole tenants."""

_SECOND = 1_000_000
_HEAP_SLACK = 64
"""Stale timers that are kept in any case: small heaps are not worth rebuilding."""


def ceil_second(time_us: int) -> int:
    """The first whole second not before a time, both in microseconds."""
    return -(-time_us // _SECOND) * _SECOND


class Breakers:
    """All breakers of one shard, with undo.

    Between :meth:`begin` and :meth:`commit` every change can be taken back by :meth:`rollback`; states are immutable
    and replaced on write. A breaker that is closed costs memory, and nothing per tick. Calls come in the order of
    stream time: whoever trips or probes at a time has first run the timers due before it.
    """

    def __init__(self, params: BreakerParams) -> None:
        self._params = params
        self._rows: dict[str, Breaker] = {}
        self._open: set[str] = set()
        self._undo: dict[str, Breaker | None] | None = None
        # Timers by (due, id). An entry counts only while its breaker still has that due, others are skipped when they
        # come up. One may be in it twice: the first run moves the due on, so that the second is skipped.
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        """How many breakers are remembered, closed ones included."""
        return len(self._rows)

    def get(self, breaker_id: str) -> Breaker | None:
        """The breaker's present state; None if it never tripped or was forgotten."""
        return self._rows.get(breaker_id)

    def ids(self) -> tuple[str, ...]:
        """The ids of all remembered breakers, in order."""
        return tuple(sorted(self._rows))

    def open_ids(self) -> tuple[str, ...]:
        """The ids of all breakers that are not CLOSED, in order."""
        return tuple(sorted(self._open))

    # --- what happens to breakers

    def trip(
        self,
        target: Target,
        moment: Moment,
        evidence: Evidence,
        *,
        action: Action,
        rule: str,
        rules_version: str,
        reason: str = "",
        mode: Mode = Mode.ENFORCE,
        severity: Severity = Severity.TICKET,
        recovery: Recovery = Recovery.PROBE,
    ) -> Breaker:
        """Open a target's breaker.

        Args:
            target: What to cut off.
            moment: Stream time, id and offset of the deciding event.
            evidence: What the trip rests on.
            action: What to ask of enforcers.
            rule: The rule that trips.
            rules_version: Content hash of the rules in force.
            reason: One line for people; empty: made from the evidence.
            mode: How far the rule goes.
            severity: ``CRITICAL`` waits for a person, whatever ``recovery`` says.
            recovery: What lets it in again; only ``PROBE`` does so by itself.

        Returns:
            The breaker in its new state, to be published. If it was not CLOSED before, it is left as it is and
            the very object that :meth:`get` returned before comes back: publish nothing.

        Raises:
            ValueError: The evidence's baseline is not strictly between 0 and 1.
        """
        key = breaker_id(target.scope, target.tenant, target.actor, target.tool, target.trace_id)
        before = self._rows.get(key)
        if before is not None and before.state is not BreakerState.CLOSED:
            return before
        self._new_test(evidence.null_p0)  # a baseline that cannot be tested is refused here, not at a later tick
        opened = Breaker(
            breaker_id=key,
            scope=target.scope,
            tenant=target.tenant,
            actor=target.actor,
            tool=target.tool,
            trace_id=target.trace_id,
            state=BreakerState.OPEN,
            action=action,
            epoch=_next_epoch(before, moment.time_us),
            rule=rule,
            rules_version=rules_version,
            mode=mode,
            severity=severity,
            recovery=Recovery.PERSON if severity is Severity.CRITICAL else recovery,
            cause=Cause.TRIP,
            reason=reason,
            since=moment.time_us,
            decided_at=moment.time_us,
            evidence=evidence,
            event_id=moment.event_id,
            offset=moment.offset,
        )
        return self._write(self._cool_down(opened))

    def probe(self, breaker_id: str, epoch: int, ok: bool, moment: Moment) -> tuple[Breaker, ...]:
        """Take in the result of one probe call.

        Args:
            breaker_id: The breaker that admitted the call.
            epoch: The epoch under which it was admitted.
            ok: Whether the call succeeded.
            moment: Stream time, id and offset of the call's event.

        Returns:
            The transitions to publish, none or one. A result for a breaker that is not HALF_OPEN or of another epoch
            is ignored (with ``late_results`` those of earlier waves of the same period count).
        """
        before = self._rows.get(breaker_id)
        if before is None or before.test is None or not self._counts(before, epoch):
            return ()
        test = before.test.observe(ok)
        after = replace(before, test=test, wave_results=before.wave_results + 1)
        match test.verdict:
            case ProbeVerdict.PASS:
                after = self._close(after, moment)
            case ProbeVerdict.FAIL:
                after = self._reopen(after, moment, Cause.PROBES_FAILED)
            case ProbeVerdict.UNDECIDED:
                after = self._reopen(after, moment, Cause.PROBES_UNDECIDED)
            case ProbeVerdict.CONTINUE:
                if after.wave_results < after.quota * after.clients_in_wave:
                    self._write(after)
                    return ()
                after = self._next_wave(after, moment, after.clients_in_wave, empty=0)
        return (self._write(after),)

    def next_due(self) -> int | None:
        """The time of the next timer: microseconds, a whole second; None if there is none."""
        while self._heap and not self._is_live(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def tick(self, now_us: int, clients_of: ClientsOf) -> tuple[Breaker, ...]:
        """Run the timers due at or before a time, in the order of their times and then of the breakers' ids.

        Args:
            now_us: Stream time, microseconds, a whole second.
            clients_of: How many clients share the probes of a wave that opens now.

        Returns:
            The transitions to publish, in order; one with ``forgotten`` is a breaker removed: publish a tombstone.

        Raises:
            ValueError: ``now_us`` is not a whole second.
        """
        if now_us % _SECOND:
            raise ValueError(f"ticks are on whole seconds, not at {now_us} microseconds")
        done: list[Breaker] = []
        while (due := self.next_due()) is not None and due <= now_us:
            before = self._rows[heapq.heappop(self._heap)[1]]
            done.append(self._on_timer(before, Moment(due), clients_of))
        return tuple(done)

    # --- undo and state

    def begin(self) -> None:
        """Open a transaction: from here on changes can be taken back.

        Raises:
            RuntimeError: One is open already.
        """
        if self._undo is not None:
            raise RuntimeError("a transaction on the breakers is open already: commit or roll it back first")
        self._undo = {}

    def commit(self) -> None:
        """Keep the changes made since :meth:`begin`."""
        self._undo = None

    def rollback(self) -> None:
        """Take back every change made since :meth:`begin`."""
        undo, self._undo = self._undo or {}, None
        for key, before in undo.items():
            self._store(key, before)

    def changed(self) -> tuple[str, ...]:
        """The ids of the breakers changed or removed since :meth:`begin`, in order."""
        return tuple(sorted(self._undo or ()))

    def put(self, breaker: Breaker) -> None:
        """Set a breaker as it was written to the state log; its timer follows from its ``due``."""
        self._write(breaker)

    def discard(self, breaker_id: str) -> None:
        """Remove a breaker, if it is there."""
        self._remember(breaker_id)
        self._store(breaker_id, None)

    # --- transitions

    def _on_timer(self, before: Breaker, moment: Moment, clients_of: ClientsOf) -> Breaker:
        if before.state is BreakerState.CLOSED:
            self.discard(before.breaker_id)
            return replace(before, forgotten=True)
        clients = clients_of(before.tenant, before.actor or "")
        if before.state is BreakerState.OPEN:
            fresh = replace(before, test=self._new_test(before.evidence.null_p0), wave=0, period=0)
            return self._write(self._next_wave(fresh, moment, clients, empty=0))
        empty = 0 if before.wave_results else before.waves_without_result + 1
        if empty >= self._params.empty_waves:
            return self._write(self._reopen(before, moment, Cause.NO_PROBES))
        return self._write(self._next_wave(before, moment, clients, empty=empty))

    def _next_wave(self, before: Breaker, moment: Moment, clients: int, *, empty: int) -> Breaker:
        epoch = _next_epoch(before, moment.time_us)
        return replace(
            before,
            state=BreakerState.HALF_OPEN,
            cause=Cause.NEXT_WAVE if before.wave else Cause.COOLDOWN_OVER,
            epoch=epoch,
            period=before.period or epoch,
            decided_at=moment.time_us,
            event_id=moment.event_id,
            offset=moment.offset,
            due=ceil_second(moment.time_us + self._params.wave_us),
            wave=before.wave + 1,
            waves_without_result=empty,
            wave_results=0,
            clients_in_wave=max(1, clients),
            quota=self._params.quota(clients),
        )

    def _close(self, before: Breaker, moment: Moment) -> Breaker:
        closed = self._leave_half_open(before, moment, Cause.PROBES_PASSED)
        due = ceil_second(moment.time_us + self._params.forget_after_us)
        return replace(closed, state=BreakerState.CLOSED, reopenings=0, cooldown_us=0, due=due)

    def _reopen(self, before: Breaker, moment: Moment, cause: Cause) -> Breaker:
        left = self._leave_half_open(before, moment, cause)
        return self._cool_down(replace(left, state=BreakerState.OPEN, reopenings=before.reopenings + 1))

    def _leave_half_open(self, before: Breaker, moment: Moment, cause: Cause) -> Breaker:
        return replace(
            before,
            cause=cause,
            epoch=_next_epoch(before, moment.time_us),
            decided_at=moment.time_us,
            event_id=moment.event_id,
            offset=moment.offset,
            wave=0,
            waves_without_result=0,
            wave_results=0,
            quota=0,
            clients_in_wave=0,
            period=0,
        )

    def _cool_down(self, opened: Breaker) -> Breaker:
        if opened.recovery is not Recovery.PROBE:
            return opened
        half = self._params.cooldown_us(opened.reopenings) // 2
        cooldown = half + _fraction_of(half, opened.breaker_id, opened.epoch)
        return replace(opened, cooldown_us=cooldown, due=ceil_second(opened.decided_at + cooldown))

    def _counts(self, breaker: Breaker, epoch: int) -> bool:
        if breaker.state is not BreakerState.HALF_OPEN:
            return False
        oldest = breaker.period if self._params.late_results else breaker.epoch
        return oldest <= epoch <= breaker.epoch

    def _new_test(self, null_p0: float) -> ProbeTest:
        params = self._params
        return ProbeTest.start(
            null_p0, floor=params.p1_floor, odds=params.odds, error=params.error, limit=params.max_probes
        )

    # --- storage

    def _write(self, breaker: Breaker) -> Breaker:
        self._remember(breaker.breaker_id)
        self._store(breaker.breaker_id, breaker)
        return breaker

    def _remember(self, key: str) -> None:
        if self._undo is not None and key not in self._undo:
            self._undo[key] = self._rows.get(key)

    def _store(self, key: str, breaker: Breaker | None) -> None:
        if breaker is None:
            self._rows.pop(key, None)
            self._open.discard(key)
            return
        self._rows[key] = breaker
        if breaker.state is BreakerState.CLOSED:
            self._open.discard(key)
        else:
            self._open.add(key)
        if breaker.due is not None:
            heapq.heappush(self._heap, (breaker.due, key))
            self._drop_stale_timers()

    def _drop_stale_timers(self) -> None:
        # Each transition leaves the old timer behind, for up to a week: a breaker that keeps changing would fill the
        # heap. Rebuilding when more than half of it is stale costs a constant amount per transition.
        if len(self._heap) > 2 * len(self._rows) + _HEAP_SLACK:
            self._heap = [(row.due, key) for key, row in self._rows.items() if row.due is not None]
            heapq.heapify(self._heap)

    def _is_live(self, entry: tuple[int, str]) -> bool:
        row = self._rows.get(entry[1])
        return row is not None and row.due == entry[0]


def _next_epoch(before: Breaker | None, time_us: int) -> int:
    """Above the last one, and at least the stream time in milliseconds, so that it grows even over lost state."""
    return max(before.epoch + 1 if before else 1, time_us // 1000)


def _fraction_of(span: int, breaker_id: str, epoch: int) -> int:
    """A number in [0, span), evenly spread over ids and epochs and fixed for each of them."""
    digest = blake2b(f"{breaker_id}\0{epoch}".encode(), digest_size=8).digest()
    return span * int.from_bytes(digest, "big") >> 64
