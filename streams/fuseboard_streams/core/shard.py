"""One shard: partition i of every input topic, folded into state, signals and commands. No I/O, no clock of its own."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.failure import fold_successes, mean_r
from fuseboard_schemas.keys import Target, home_partition
from fuseboard_schemas.records import DeadLetterReason, EnforcementAck, Override
from fuseboard_schemas.rules import check_override
from fuseboard_streams.core.breaker import Moment
from fuseboard_streams.core.breakers import Breakers
from fuseboard_streams.core.counters import ShardCounters, ToolEvidence
from fuseboard_streams.core.decisions import Decisions, Output
from fuseboard_streams.core.dedup import deduplicate
from fuseboard_streams.core.identity import Identities, Rejected
from fuseboard_streams.core.index import first_occurrences
from fuseboard_streams.core.piece import Piece
from fuseboard_streams.core.prepare import NO_SEQ, ToolCalls
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.state import ShardState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_streams.core.settings import CoreSettings, HashSeeds
    from fuseboard_streams.core.store import Delta
    from fuseboard_streams.core.tables import Table

I64: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]


class Shard:
    """The state of one shard and the only code that changes it.

    Between `begin` and `commit` everything can be taken back with `rollback`. The result of a sequence of calls does
    not depend on how it is cut into batches.
    """

    def __init__(self, number: int, partitions: int, settings: CoreSettings, seeds: HashSeeds) -> None:
        self.number = number
        self._partitions = partitions
        self._settings = settings
        self._state = ShardState(settings)
        state = self._state
        self._identities = Identities(number, partitions, settings, seeds, state.actors, state.tools)
        self._breakers = Breakers(settings.breaker)
        self.counters = ShardCounters()
        self._decisions = Decisions(settings, state, self._identities, self._breakers, self.counters)
        self._rejected: list[Rejected] = []
        self._saved = (0, 0, replace(self.counters))
        self.stream_time = 0

    # --- a transaction

    def begin(self) -> None:
        """Open a transaction: from here on everything can be taken back."""
        self._state.begin()
        self._breakers.begin()
        self._saved = (self.stream_time, len(self._identities.tool_names), replace(self.counters))

    def encode_changes(self, slice_bytes: int) -> Delta:
        """What this transaction changed, and the next slice of the rolling checkpoint, for the state log.

        Call it once, after the last fold; nothing may change between it and `commit` or `rollback`.
        """
        _, tools, _ = self._saved
        names = self._identities.tool_names[tools:]
        self._state.record(self.stream_time, dict(enumerate(names, tools)), self._breakers)
        return self._state.encode_changes(slice_bytes)

    def commit(self) -> None:
        """Keep the changes since `begin`."""
        self._state.commit()
        self._breakers.commit()

    def rollback(self) -> None:
        """Take back everything since `begin`."""
        self._state.rollback()
        self._breakers.rollback()
        self.stream_time, tools, counters = self._saved
        for field in fields(counters):
            setattr(self.counters, field.name, getattr(counters, field.name))
        self._identities.forget_tools(tools)
        self._decisions.take_outputs()
        self._rejected.clear()

    def apply(self, block: bytes) -> None:
        """Restore: take in one block of the state log, in log order."""
        self._state.apply(block)

    def finish_restore(self) -> None:
        """Make indexes and timers anew once all blocks are in."""
        self.stream_time = self._state.finish_restore(self._identities, self._breakers)

    def take_outputs(self) -> list[Output]:
        """The signals and commands decided since the last call, in order."""
        return self._decisions.take_outputs()

    def take_rejected(self) -> list[Rejected]:
        """The records that were refused since the last call, in their order."""
        rejected, self._rejected = self._rejected, []
        return rejected

    def open_breakers(self) -> tuple[str, ...]:
        """The ids of the breakers that are not closed."""
        return self._breakers.open_ids()

    def tool_evidence(self) -> list[ToolEvidence]:
        """How every tool of every actor stands now, for people to look at."""
        tools, actors = self._state.tools, self._state.actors
        rows = places(tools.live)
        state = self._state.tool_statistic.load(rows)
        means = mean_r(fold_successes(state.r, state.p0, state.successes, self._settings.failure.odds))
        names = self._identities.tool_names
        return [
            ToolEvidence(actors["tenant"][owner], actors["actor"][owner], names[tool], p0, mean)
            for owner, tool, p0, mean in zip(
                tools["actor"][rows].tolist(), tools["tool"][rows].tolist(), state.p0.tolist(), means.tolist(),
                strict=True,
            )
        ]  # fmt: skip

    @property
    def keys(self) -> dict[str, int]:
        """How many rows each table holds."""
        tables = {table.name: table.size for table in self._state.tables_in_order}
        return tables | {"tool_names": len(self._identities.tool_names)}

    # --- time

    def advance(self, to_us: int) -> None:
        """Move stream time on without an event: the shard's inputs are at their end."""
        if to_us > self.stream_time > 0:
            self._run_timers(to_us)
            self.stream_time = to_us

    def _run_timers(self, until_us: int) -> None:
        while (due := self._breakers.next_due()) is not None and due <= until_us:
            self._decisions.publish_breakers(self._breakers.tick(due, lambda t, a: self._clients_of(t, a, due)))

    def _clients_of(self, tenant: str, actor: str, now_us: int) -> int:
        """How many clients of an actor were seen within the window before a time."""
        row = self._identities.find_actor(tenant, actor)
        if row is None:
            return 0
        return self._state.clients_seen(row, now_us - self._settings.breaker.client_window_us)

    # --- folding

    def fold_tool_calls(self, calls: ToolCalls) -> None:
        """Fold the next tool calls of this partition.

        Calls that a field rule refuses change nothing and are handed out by `take_rejected`.
        """
        self.counters.events += len(calls)
        calls = self._without_ancient(calls)
        tool, rejected = self._identities.rows_of(calls)
        if rejected:
            self._reject(rejected)
            kept = tool >= 0
            calls, tool = calls.take(kept), tool[kept]
        if len(calls) == 0:
            return
        whole = self._place(calls, tool)
        begin = 0
        while begin < len(whole):
            self._run_timers(int(whole.stream[begin]))
            end = self._piece_end(whole.stream, begin)
            self._fold_piece(whole if (begin, end) == (0, len(whole)) else whole.part(slice(begin, end)))
            begin = end
        self.stream_time = int(whole.stream[-1])

    def fold_acks(self, acks: Sequence[EnforcementAck]) -> None:
        """Remember which epoch of a breaker has been acknowledged by how many clients."""
        for ack in acks:
            self.counters.acks += 1
            if self._breakers.get(ack.breaker_id) is not None:
                self._state.acknowledge(ack.breaker_id, ack.epoch)
                self._breakers.acknowledge(ack.breaker_id, ack.epoch, Moment(self.stream_time))

    def fold_overrides(self, overrides: Sequence[tuple[int, int, Override]]) -> None:
        """Carry out people's orders, each once: one whose id has been seen before is passed over.

        They do not move stream time on: a shard that is behind would take all calls up to the order for late.
        Those that cannot be carried out change nothing and are handed out by `take_rejected`.

        Args:
            overrides: The offset in ``overrides``, the arrival in microseconds, and the order of each.
        """
        for offset, arrival, order in overrides:
            self.counters.overrides += 1
            problem = self._refused(order, arrival)
            if problem is None and self._state.remember_order(order.override_id):
                target = Target(order.scope, order.tenant, order.actor, order.tool, order.trace_id)
                # A shard that has seen no call has no time of its own yet.
                now = self.stream_time or arrival
                ordered = self._breakers.order(target, order, Moment(now, order.override_id, offset))
                self._decisions.publish_breakers(ordered.changed)
                if ordered.refused is not None:
                    problem = DeadLetterReason.INVALID_FIELD, ordered.refused
            if problem is not None:
                self._reject([Rejected(offset, *problem, topic="overrides")])

    def _refused(self, order: Override, arrival: int) -> tuple[DeadLetterReason, str] | None:
        detail = check_override(order, max(arrival, self.stream_time))
        if detail is not None:
            return DeadLetterReason.INVALID_FIELD, detail
        home = home_partition(order.scope, order.tenant, order.actor, order.tool, self._partitions)
        if home == self.number:
            return None
        detail = f"orders about this target belong to partition {home} of {self._partitions}, not {self.number}"
        return DeadLetterReason.MISPLACED, detail

    def acknowledged(self, breaker_id: str) -> tuple[int, int]:
        """The newest acknowledged epoch of a breaker, and how many acknowledgements it has."""
        return self._state.acknowledged(breaker_id)

    def _reject(self, rejected: list[Rejected]) -> None:
        self.counters.rejected += len(rejected)
        self._rejected.extend(sorted(rejected, key=lambda r: r.offset))

    def _without_ancient(self, calls: ToolCalls) -> ToolCalls:
        ancient = calls.ts < self._settings.oldest_us
        if not ancient.any():
            return calls
        self._reject(
            [
                Rejected(offset, DeadLetterReason.ANCIENT, f"ts {ts} microseconds is before 2000-01-01T00:00:00Z")
                for offset, ts in zip(calls.offset[ancient].tolist(), calls.ts[ancient].tolist(), strict=True)
            ]
        )
        return calls.take(~ancient)

    def _place(self, calls: ToolCalls, tool: Rows) -> Piece:
        future = calls.ts > calls.arrival + self._settings.future_tolerance_us
        ts = np.where(future, calls.arrival, calls.ts)
        self.counters.clamped += int(np.count_nonzero(future))
        stream = np.maximum.accumulate(np.maximum(ts, self.stream_time))
        actor = self._state.tools["actor"][tool].astype(np.int64)
        return Piece(calls, ts, stream, tool, actor, self._clients(calls, actor))

    def _clients(self, calls: ToolCalls, actor: Rows) -> Rows:
        lo, hi = calls.client.view(np.uint64), actor.astype(np.uint64)
        rows = self._state.clients.find(lo, hi).astype(np.int64)
        unnumbered = calls.seq == NO_SEQ
        rows[unnumbered] = -1
        unknown = places((rows < 0) & ~unnumbered)
        if len(unknown):
            first, inverse = first_occurrences(lo[unknown], hi[unknown])
            heads = unknown[first][: self._state.clients.room]
            made = np.full(len(first), -1, dtype=np.int64)
            if len(heads):
                made[: len(heads)] = self._state.clients.add(lo[heads], hi[heads])
                self._state.refer(actor[heads], 1)
            rows[unknown] = made[inverse]
            self.counters.clients_unknown += int(np.count_nonzero(made[inverse] < 0))
        return rows

    def _piece_end(self, stream: I64, begin: int) -> int:
        """Where the next timer known now falls due, or where one made from here on might."""
        limit = int(stream[begin]) + self._settings.piece_us
        due = self._breakers.next_due()
        if due is not None:
            limit = min(limit, due)
        return max(int(np.searchsorted(stream, limit, side="left")), begin + 1)

    def _fold_piece(self, piece: Piece) -> None:
        self._state.expire(piece)
        piece = self._unseen(piece)
        if len(piece) == 0:
            return
        late = piece.stream - piece.ts > self._settings.late_after_us
        self.counters.late += int(np.count_nonzero(late))
        evicted = self._decisions.traces_evicted
        self._decisions.fold(piece, ~late)
        self.counters.traces_evicted += self._decisions.traces_evicted - evicted

    def _unseen(self, piece: Piece) -> Piece:
        """Note when each key was last seen, and drop duplicates."""
        state, seconds = self._state, piece.seconds
        for table, rows in ((state.tools, piece.tool), (state.actors, piece.actor)):
            _seen(table, rows, seconds)
        numbered = piece.client >= 0
        if not numbered.any():
            return piece
        whole = bool(numbered.all())
        rows = piece.client if whole else piece.client[numbered]
        _seen(state.clients, rows, seconds if whole else seconds[numbered])
        seq = piece.calls.seq if whole else piece.calls.seq[numbered]
        result = deduplicate(state.clients, rows, seq)
        self.counters.duplicates += result.duplicates
        self.counters.missing += result.missing
        self.counters.recovered += result.recovered
        if not result.duplicates:
            return piece
        fresh = np.ones(len(piece), dtype=np.bool_)
        fresh[numbered] = result.fresh
        return piece.part(fresh)


def _seen(table: Table, rows: Rows, seconds: NDArray[np.int32]) -> None:
    table.touch("hot", rows)
    # With repeated rows the last assignment stays, and stream time never falls.
    table["last_seen"][rows] = seconds


__all__ = ["Output", "Rejected", "Shard", "ShardCounters", "ToolEvidence"]
