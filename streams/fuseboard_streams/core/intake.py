"""What every event goes through before anything is decided: field rules, its times, and the replay window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from fuseboard_schemas.records import DeadLetterReason
from fuseboard_schemas.rules import check_ids
from fuseboard_streams.core.dedup import deduplicate
from fuseboard_streams.core.events import COST, TRACES, ActorEvents
from fuseboard_streams.core.identity import Rejected, too_old
from fuseboard_streams.core.prepare import NO_COST, NO_SEQ, ToolCalls
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.settings import DOLLAR
from fuseboard_streams.core.state import NO_ACTOR

if TYPE_CHECKING:
    from fuseboard_streams.core.counters import ShardCounters
    from fuseboard_streams.core.settings import CoreSettings
    from fuseboard_streams.core.state import ShardState
    from fuseboard_streams.core.tables import Table
    from fuseboard_streams.core.times import Placed, Times

I64: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
Seconds: TypeAlias = NDArray[np.int32]
Places: TypeAlias = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the numbers of m events of a piece of n show to be missing."""

    at: Places
    """Which events they are, shape (m,)."""
    expected: I64
    """How many numbers each shows to be due, shape (m,); see `dedup.Deduplicated`."""
    gaps: I64


B = TypeVar("B", ToolCalls, ActorEvents)


class Intake:
    """The entrance of one shard; changes its replay windows and last-seen times, and nothing else."""

    def __init__(self, settings: CoreSettings, state: ShardState, counters: ShardCounters) -> None:
        self._settings = settings
        self._state = state
        self._counters = counters
        self._rejected: list[Rejected] = []
        self.count_each = False
        """Whether somebody asks what each event shows to be missing."""
        self.numbers: Numbers | None = None
        """That, of the last piece that `unseen` was given; None if there is nothing."""

    # --- field rules

    def reject(self, rejected: list[Rejected]) -> None:
        """Note records that a field rule refuses."""
        self._counters.rejected += len(rejected)
        self._rejected.extend(sorted(rejected, key=lambda each: each.offset))

    def take_rejected(self) -> list[Rejected]:
        """Those refused since the last call."""
        rejected, self._rejected = self._rejected, []
        return rejected

    def usable(self, topic: str, batch: B) -> B:
        """The events whose own fields are right; the others are refused."""
        return self._with_possible_costs(topic, self._without_long_ids(topic, self._without_ancient(topic, batch)))

    def _without_long_ids(self, topic: str, batch: B) -> B:
        if not batch.wordy.any():
            return batch
        wrong = places(batch.wordy)
        ids = {name: batch.strings(name, wrong) for name in ("event_id", "trace_id")}
        self.reject(
            [
                Rejected(offset, DeadLetterReason.INVALID_FIELD, check_ids(*both) or "", topic)
                for offset, *both in zip(batch.offset[wrong].tolist(), *ids.values(), strict=True)
            ]
        )
        return batch.take(~batch.wordy)

    def _without_ancient(self, topic: str, batch: B) -> B:
        ancient = batch.ts < self._settings.oldest_us
        if not ancient.any():
            return batch
        self.reject(
            [
                Rejected(offset, DeadLetterReason.ANCIENT, too_old(ts), topic)
                for offset, ts in zip(batch.offset[ancient].tolist(), batch.ts[ancient].tolist(), strict=True)
            ]
        )
        return batch.take(~ancient)

    def _with_possible_costs(self, topic: str, batch: B) -> B:
        if isinstance(batch, ToolCalls):
            cost = batch.cost
        elif topic == TRACES:
            cost = batch.columns[COST]
        else:
            return batch
        if len(batch) == 0 or (cost.min() >= NO_COST and cost.max() <= self._settings.max_cost):
            return batch
        wrong = (cost < NO_COST) | (cost > self._settings.max_cost)
        # What a negative cost was is no longer in the column.
        told = batch.frame.get_column("cost_usd_micros")
        self.reject(
            [
                Rejected(offset, DeadLetterReason.INVALID_FIELD, self._cost_words(told[row]), topic)
                for offset, row in zip(batch.offset[wrong].tolist(), batch.source[wrong].tolist(), strict=True)
            ]
        )
        return batch.take(~wrong)

    def _cost_words(self, micros: int) -> str:
        if micros < 0:
            return f"cost_usd_micros is {micros}: a cost is never below zero"
        most = self._settings.max_event_usd
        return (
            f"cost_usd_micros is {micros}, {micros // DOLLAR} dollars: one event may cost at most {most} dollars "
            "(max_event_usd); costs are in millionths of a dollar"
        )

    # --- the replay window

    def windows(self, topic: str, client: I64, seq: I64, actor: Rows) -> Rows:
        """The row of each event's replay window, -1 for an event without a number; every array has shape (n,)."""
        numbered = seq != NO_SEQ
        whole = bool(numbered.all())
        if whole:
            rows, unknown = self._state.window_rows(topic, client, actor)
        else:
            rows, unknown = np.full(len(seq), -1, dtype=np.int64), 0
            if numbered.any():
                rows[numbered], unknown = self._state.window_rows(topic, client[numbered], actor[numbered])
        self._counters.clients_unknown += unknown
        return rows

    def unseen(self, client: Rows, seq: I64, seconds: Seconds, *keys: tuple[Table, Rows], gaps: bool = True) -> Bools:
        """Note when each key was last seen, and which events of a piece have not been seen.

        Args:
            client: The rows of their replay windows, shape (n,).
            seq: Their numbers, shape (n,).
            seconds: Stream time at each in whole seconds since 2000, shape (n,).
            keys: Tables of actors or tools with the events' rows, shape (n,).
            gaps: Whether a gap in the numbers is a lost event.

        Returns:
            bool[n].
        """
        for table, rows in keys:
            _seen(table, rows, seconds)
        fresh = np.ones(len(client), dtype=np.bool_)
        self.numbers = None
        numbered = client >= 0
        if not numbered.any():
            return fresh
        whole = bool(numbered.all())
        rows = client if whole else client[numbered]
        clients = self._state.clients
        _seen(clients, rows, seconds if whole else seconds[numbered])
        result = deduplicate(clients, rows, seq if whole else seq[numbered], each=self.count_each)
        self._counters.duplicates += result.duplicates
        if gaps:
            self._counters.missing += result.missing
            self._counters.recovered += result.recovered
            if result.expected is not None and result.gaps is not None:
                self.numbers = Numbers(places(numbered), result.expected, result.gaps)
        fresh[numbered] = result.fresh
        return fresh

    def repeated(self, topic: str, client: int, seq: int | None, seconds: int) -> bool:
        """Whether a record that belongs to no actor has been seen: it has a replay window for each client and topic.

        Its numbers go over all partitions, so that gaps in one of them mean nothing.
        """
        if seq is None or seq < 0:
            return False
        number, nobody = np.array([seq], dtype=np.int64), np.array([NO_ACTOR], dtype=np.int64)
        row = self.windows(topic, np.array([client], dtype=np.int64), number, nobody)
        at = np.array([seconds], dtype=np.int32)
        self._state.expire(at, row)
        return not self.unseen(row, number, at, gaps=False)[0]

    # --- time

    def place(self, topic: str, ts: I64, arrival: I64, times: Times) -> Placed:
        """The times of the next events of a topic; counts those that were set back. Shapes as in `Times.place`."""
        placed = times.place(topic, ts, arrival, self._settings)
        self._counters.clamped += placed.clamped
        return placed


def _seen(table: Table, rows: Rows, seconds: Seconds) -> None:
    table.touch("hot", rows)
    # With repeated rows the last assignment stays, and stream time never falls.
    table["last_seen"][rows] = seconds
