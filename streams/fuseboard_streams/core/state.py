"""Everything that a shard remembers, and how it gets into the state log and back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.segments import firsts
from fuseboard_streams.core import measured
from fuseboard_streams.core.breaker import decode, encode
from fuseboard_streams.core.coverage import coverage_table, outdated
from fuseboard_streams.core.denials import denials_table
from fuseboard_streams.core.exceeding import free_histograms, histograms_table, references_table
from fuseboard_streams.core.firsts import firsts_table
from fuseboard_streams.core.hard_caps import capped_table
from fuseboard_streams.core.hard_caps import over as day_over
from fuseboard_streams.core.inputs import DATED, TOOL_CALLS
from fuseboard_streams.core.layout import (
    EPOCH_S,
    actors_table,
    clients_table,
    rings_table,
    tools_table,
    traces_table,
)
from fuseboard_streams.core.losses import emptied, losses_table
from fuseboard_streams.core.remembered import RememberedIds
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.sessions import sessions_table
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.silence import requests_table
from fuseboard_streams.core.spending import spends_table
from fuseboard_streams.core.statistics import Statistic
from fuseboard_streams.core.store import Delta, Store
from fuseboard_streams.core.tasks import tasks_table
from fuseboard_streams.core.times import Times
from fuseboard_streams.core.traces import TraceCap
from fuseboard_streams.core.violating import violating_table
from fuseboard_streams.core.violations import faded, violators_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fuseboard_streams.core.breakers import Breakers
    from fuseboard_streams.core.identity import Identities
    from fuseboard_streams.core.objects import Objects
    from fuseboard_streams.core.rulebook import Rulebook
    from fuseboard_streams.core.tables import Table

Rows: TypeAlias = NDArray[np.int64]
I64: TypeAlias = NDArray[np.int64]
Seconds: TypeAlias = NDArray[np.int32]

_STREAM, _NEWEST = "stream_time", "newest "
_WINDOWS = {topic: number << 32 for number, topic in enumerate(DATED)}
"""A replay window's key is the client, and the actor's row with the topic above it: 32 bits each, so that no two meet.
Tool calls are 0, as all were before there were other topics."""
_ROW = np.uint64(0xFFFF_FFFF)
NO_ACTOR = int(_ROW)
"""Stands for the row of no actor, in the keys of replay windows of topics whose records may have none."""
_TOOL, _BREAKER, _ACK, _VIRTUAL, _RULES = "tool", "breaker", "ack", "virtual", "rules"
IDS_REMEMBERED = 10_000
"""Ids of people's orders, and of others' signals, that a shard knows again; the oldest make room."""


class ShardState:
    """The tables of a shard and what belongs to their rows."""

    def __init__(self, settings: CoreSettings, book: Rulebook) -> None:
        self._settings = settings
        self.actors = actors_table(settings, book.actors)
        self.tools = tools_table(settings, book.tools)
        self.clients = clients_table(settings)
        self.rings = rings_table(settings, book.actors)
        self.spends = spends_table(settings)
        self.capped = capped_table(settings)
        self.violators = violators_table(settings)
        self.sessions = sessions_table(settings)
        self.losses = losses_table(settings)
        self.requests = requests_table(settings)
        self.references = references_table(settings)
        self.histograms = histograms_table(settings)
        self.observed = firsts_table("observed", settings)
        self.violating = violating_table(settings)
        self.denied = firsts_table("denied", settings)
        self.measured = measured.measured_table(settings)
        self.coverage = coverage_table(settings)
        self.denials = denials_table(settings)
        self.tasks = tasks_table(settings)
        tool_traces = traces_table("tool_traces", settings)
        actor_traces = traces_table("actor_traces", settings)
        # What points at tools and actors comes before them: a slice that forgets it frees them.
        self.tables_in_order: tuple[Table, ...] = (
            self.references, self.tools, self.clients, self.capped, self.violators, self.losses, self.violating,
            self.measured, self.coverage, self.denials, self.tasks, self.actors, self.rings, self.spends, self.requests,
            self.sessions, tool_traces, actor_traces, self.histograms, self.observed, self.denied,
        )  # fmt: skip
        self._store = Store(self.tables_in_order)
        tool, actor = book.tools.params(0), book.actors.params(0)
        self.tool_cap = TraceCap(tool_traces, tool.cap, tool.cap_window_us, settings.max_traces)
        self.actor_cap = TraceCap(actor_traces, actor.cap, actor.cap_window_us, settings.max_traces)
        self.tool_statistic = Statistic(self.tools, book.tools)
        self.actor_statistic = Statistic(self.actors, book.actors, self.rings)
        self._now_s = 0
        self.orders = RememberedIds(self._store, "order", IDS_REMEMBERED)
        """Of people's orders."""
        self.signals = RememberedIds(self._store, "signal", IDS_REMEMBERED)
        """Of others' signals."""
        self._store.expire("tools", self._expired_tools)
        self._store.expire("clients", self._expired_clients)
        self._store.expire("actors", self._expired_actors)
        self._store.expire("capped", self._expired_capped)
        self._store.expire("violators", self._expired_violators)
        self._store.expire("sessions", self._expired_sessions)
        self._store.expire("losses", self._expired_losses)
        self._store.expire("references", self._expired_references)
        self._store.expire("violating", self._expired_violating)
        self._store.expire("measured", self._expired_measured)
        self._store.expire("coverage", partial(self._outdated, self.coverage))
        self._store.expire("denials", partial(self._outdated, self.denials))

    # --- a transaction

    def begin(self) -> None:
        """Open a transaction."""
        self._store.begin()
        self.orders.begin()
        self.signals.begin()

    def scalar(self, name: str) -> int | None:
        """A number that was recorded, None if it was None or there is none."""
        value = self._store.scalars.get(name)
        return None if value is None else int(value)

    def record(
        self, times: Times, new_tools: Mapping[int, str], breakers: Breakers, scalars: Mapping[str, int | None]
    ) -> None:
        """Put what lives outside the tables into the store, before its changes are encoded."""
        self._now_s = times.stream // SECOND - EPOCH_S
        self._store.scalars[_STREAM] = times.stream
        self._store.scalars.update(scalars)
        self._store.scalars.update({_NEWEST + topic: newest for topic, newest in times.newest.items()})
        objects = self._store.objects
        for number, name in new_tools.items():
            objects.put(_TOOL, name, str(number).encode())
        for breaker_id in breakers.changed():
            breaker = breakers.get(breaker_id)
            if breaker is None:
                objects.delete(_BREAKER, breaker_id)
                objects.delete(_ACK, breaker_id)
            else:
                objects.put(_BREAKER, breaker_id, encode(breaker))
        for name, data in breakers.virtual.changes():
            if data is None:
                objects.delete(_VIRTUAL, name)
            else:
                objects.put(_VIRTUAL, name, data)

    @property
    def objects(self) -> Objects:
        """What others keep here under names of their own; written in a transaction only."""
        return self._store.objects

    def encode_changes(self, slice_bytes: int) -> Delta:
        """The block of this transaction."""
        return self._store.encode_changes(slice_bytes)

    def commit(self) -> None:
        """Keep the transaction's changes."""
        self._store.commit()

    def rollback(self) -> None:
        """Take them back."""
        self._store.rollback()
        self.orders.rollback()
        self.signals.rollback()
        self.tool_cap.rebuild()
        self.actor_cap.rebuild()

    def apply(self, block: bytes) -> None:
        """Restore one block."""
        self._store.apply(block)

    def finish_restore(self, identities: Identities, breakers: Breakers) -> Times:
        """Complete a restore; returns where the shard stands in time."""
        for name, number in self._store.objects.items(_TOOL):
            identities.restore_tool(int(number), name)
        identities.rehash()
        self._store.finish_restore()
        for _, value in self._store.objects.items(_BREAKER):
            breakers.put(decode(value))
        for name, value in self._store.objects.items(_VIRTUAL):
            breakers.virtual.restore(name, value)
        self.orders.load()
        self.signals.load()
        self.tool_cap.rebuild()
        self.actor_cap.rebuild()
        scalars = self._store.scalars
        stream = int(scalars.get(_STREAM) or 0)
        newest = {topic: int(scalars[_NEWEST + topic] or 0) for topic in DATED if _NEWEST + topic in scalars}
        # State that was written when tool calls alone had a time does not name theirs.
        return Times(stream, newest or {TOOL_CALLS: stream})

    # --- acknowledgements

    def acknowledge(self, breaker_id: str, epoch: int) -> None:
        """Count an acknowledgement of a breaker's epoch; older epochs than the newest seen are ignored."""
        newest, count = self.acknowledged(breaker_id)
        if epoch >= newest:
            total = count + 1 if epoch == newest else 1
            self._store.objects.put(_ACK, breaker_id, f"{epoch} {total}".encode())

    def acknowledged(self, breaker_id: str) -> tuple[int, int]:
        """The newest acknowledged epoch of a breaker and how many acknowledged it; (0, 0) if nobody has."""
        value = self._store.objects.get(_ACK, breaker_id)
        if value is None:
            return 0, 0
        epoch, count = value.split()
        return int(epoch), int(count)

    # --- references and forgetting

    def refer(self, actors: Rows, change: int) -> None:
        """Note that so many rows more, or fewer, point at these actors."""
        self.actors.touch("refs", actors)
        np.add.at(self.actors["refs"], actors, np.int32(change))

    def refer_tools(self, tools: Rows, change: int) -> None:
        """The same of tools."""
        self.tools.touch("refs", tools)
        np.add.at(self.tools["refs"], tools, np.int32(change))

    def window_rows(self, topic: str, client: I64, actor: Rows) -> tuple[Rows, int]:
        """The rows of the clients' replay windows, making new ones as needed.

        Args:
            topic: Each has windows of its own.
            client: Shape (n,).
            actor: The actors' rows, or `NO_ACTOR`, shape (n,).

        Returns:
            Rows of the clients table, -1 where there is no room for another, and how many those are.
        """
        lo, hi = client.view(np.uint64), actor.astype(np.uint64) | np.uint64(_WINDOWS[topic])
        rows = self.clients.find(lo, hi).astype(np.int64)
        unknown = places(rows < 0)
        if len(unknown) == 0:
            return rows, 0
        made, new = self.clients.add_missing(lo[unknown], hi[unknown])
        owners = actor[unknown[new]]
        self.refer(owners[owners != NO_ACTOR], 1)
        rows[unknown] = made
        return rows, int(np.count_nonzero(made < 0))

    def clients_seen(self, actor: int, since_us: int) -> int:
        """How many clients of an actor have sent tool calls since a time."""
        clients = self.clients
        top = clients.high_water
        mine = (clients["actor"][:top] == np.uint64(actor)) & clients.live[:top]
        recent = clients["last_seen"][:top] >= -(-since_us // SECOND) - EPOCH_S
        return int(np.count_nonzero(mine & recent))

    def expire(self, seconds: Seconds, client: Rows, *keys: tuple[Table, Rows]) -> None:
        """Start the keys of a piece of n events anew that have been idle for too long.

        Args:
            seconds: Stream time at each event in whole seconds since 2000, shape (n,).
            client: Rows of the clients table, -1 for none, shape (n,).
            keys: Tables of actors or tools with the events' rows, shape (n,).

        Whether a row is forgotten follows from its own last-seen time at its next event: that the checkpoint's slice
        may have removed it already never shows.
        """
        limit = self._settings.forget_after_us // SECOND
        for table, rows in keys:
            stale = _stale(table, rows, seconds, limit)
            if len(stale):
                stale = stale[table["frozen"][stale] == 0]
                self._start_anew(table, stale)
        numbered = client >= 0
        rows = client[numbered]
        stale = _stale(self.clients, rows, seconds[numbered], self._settings.client_idle_us // SECOND)
        if len(stale):
            self.clients.touch("hot", stale)
            self.clients["last_seq"][stale] = -1
            self.clients["window"][stale] = 0

    def adopt(self, book: Rulebook) -> None:
        """Count by other rules from now on."""
        for cap, level in ((self.tool_cap, book.tools), (self.actor_cap, book.actors)):
            params = level.params(0)
            cap.adopt(params.cap, params.cap_window_us)

    def note_rules(self, version: str, text: bytes, offset: int | None) -> None:
        """Remember which rules are in force, word for word: the topic keeps only the newest."""
        objects = self._store.objects
        objects.put(_RULES, "version", version.encode())
        objects.put(_RULES, "text", text)
        if offset is not None:
            objects.put(_RULES, "offset", str(offset).encode())
        elif objects.get(_RULES, "offset") is not None:
            objects.delete(_RULES, "offset")

    @property
    def rules_offset(self) -> int | None:
        """Where in the topic they were found; None for rules that are not from there."""
        value = self._store.objects.get(_RULES, "offset")
        return None if value is None else int(value)

    @property
    def rules_version(self) -> str | None:
        """Which rules the state was last made under; None if that was never noted."""
        value = self._store.objects.get(_RULES, "version")
        return None if value is None else value.decode()

    @property
    def rules_text(self) -> bytes | None:
        """Their text."""
        return self._store.objects.get(_RULES, "text")

    def start_anew(self, table: Table, rows: Rows) -> None:
        """Begin the statistics of these rows anew; those that rest go on resting."""
        self._start_anew(table, rows)

    def _start_anew(self, table: Table, rows: Rows) -> None:
        if len(rows) == 0:
            return
        table.touch("hot", rows)
        table.touch("stat", rows)
        statistic = self.tool_statistic if table is self.tools else self.actor_statistic
        statistic.restart(rows)
        for name in (
            "pending_calls", "pending_failures", "parked_calls", "parked_failures", "learned_calls", "learned_failures",
            "closed_at",
        ):  # fmt: skip
            table[name][rows] = 0
        table["p0"][rows] = 0.0
        family, column = ("used", "used") if table is self.tools else ("experience", "calls")
        known = table.used_rows(family, rows)
        table.touch(family, known)
        table[column][known] = 0
        if table is self.actors:
            self._answer(rows)

    def _answer(self, actors: Rows) -> None:
        """What was requested of these actors is forgotten with them."""
        rows = self.actors["asked"][actors]
        rows = rows[rows >= 0]
        for family, columns in (("heard", ("heard",)), ("unanswered", ("requests", "since")), ("due", ("due",))):
            known = self.requests.used_rows(family, rows)
            self.requests.touch(family, known)
            for column in columns:
                self.requests[column][known] = 0

    def _expired(self, table: Table, rows: NDArray[np.int32], limit_us: int) -> NDArray[np.bool_]:
        idle: NDArray[np.int64] = self._now_s - table["last_seen"][rows].astype(np.int64)
        return idle > limit_us // SECOND

    def _expired_tools(self, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        gone: NDArray[np.bool_] = self._expired(self.tools, rows, self._settings.forget_after_us) & (
            self.tools["frozen"][rows] == 0
        )
        gone &= self.tools["refs"][rows] == 0
        if gone.any():
            self.refer(self.tools["actor"][rows[gone]].astype(np.int64), -1)
        return gone

    def _expired_clients(self, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        gone = self._expired(self.clients, rows, self._settings.client_idle_us)
        if gone.any():
            owners = self.clients["actor"][rows[gone]] & _ROW
            self.refer(owners[owners != _ROW].astype(np.int64), -1)
        return gone

    def _expired_violators(self, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        gone = faded(self.violators, rows, (self._now_s + EPOCH_S) * SECOND)
        if gone.any():
            self.refer(self.violators["actor"][rows[gone]].astype(np.int64), -1)
        return gone

    def _expired_capped(self, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        gone = day_over(self.capped, rows, (self._now_s + EPOCH_S) * SECOND)
        if gone.any():
            self.refer(self.capped["actor"][rows[gone]].astype(np.int64), -1)
        return gone

    def _expired_losses(self, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        gone = emptied(self.losses, rows, (self._now_s + EPOCH_S) * SECOND)
        if gone.any():
            self.refer(self.losses["actor"][rows[gone]].astype(np.int64), -1)
        return gone

    def _expired_references(self, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        gone = self._expired(self.references, rows, self._settings.forget_after_us)
        if gone.any():
            self.refer_tools(self.references["owner"][rows[gone]].astype(np.int64), -1)
            free_histograms(self.references, self.histograms, rows[gone])
        return gone

    def _expired_violating(self, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        gone = self._expired(self.violating, rows, self._settings.forget_after_us)
        if gone.any():
            self.refer(self.violating["owner"][rows[gone]].astype(np.int64), -1)
        return gone

    def _expired_measured(self, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        gone = measured.emptied(self.measured, rows, (self._now_s + EPOCH_S) * SECOND)
        if gone.any():
            self.refer(measured.actor_of(self.measured["owner"][rows[gone]]), -1)
        return gone

    def _outdated(self, table: Table, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        gone = outdated(table, rows, (self._now_s + EPOCH_S) * SECOND)
        if gone.any():
            self.refer(table["owner"][rows[gone]].astype(np.int64), -1)
        return gone

    def _expired_sessions(self, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        return self._expired(
            self.sessions, rows, min(self._settings.session_idle_us, self._settings.forget_after_us // 2)
        )

    def _expired_actors(self, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        actors = self.actors
        gone = self._expired(actors, rows, self._settings.forget_after_us)
        gone &= (actors["frozen"][rows] == 0) & (actors["refs"][rows] == 0)
        if gone.any():
            for column, table in (("ring", self.rings), ("spend", self.spends), ("asked", self.requests)):
                theirs = actors[column][rows[gone]]
                table.free(theirs[theirs >= 0])
        return gone


def _stale(table: Table, rows: Rows, seconds: NDArray[np.int32], limit_s: int) -> Rows:
    """The rows seen before, but not within the limit; a row made just now has never been seen."""
    last = table["last_seen"][rows]
    old = (seconds - last > limit_s) & (last != 0)
    if not old.any():
        return rows[:0]
    # Only a row's first event of the piece tells: the others come after that one, not after ``last``.
    unique, first = firsts(rows)
    stale: Rows = unique[old[first]]
    return stale
