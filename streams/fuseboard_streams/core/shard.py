"""One shard: partition i of every input topic, folded into state, signals and commands. No I/O, no clock of its own."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.failure import fold_successes, mean_r
from fuseboard_schemas.keys import Target, home_partition
from fuseboard_schemas.records import DeadLetterReason
from fuseboard_schemas.rules import check_override
from fuseboard_streams.core.breaker import Moment
from fuseboard_streams.core.breakers import Breakers
from fuseboard_streams.core.clearing import ASKED_AT, Clearing
from fuseboard_streams.core.counters import ShardCounters, ToolEvidence
from fuseboard_streams.core.decisions import Decisions, Output
from fuseboard_streams.core.engine import Engine
from fuseboard_streams.core.events import COST, DECISIONS, REQUESTS, TRACES, EventPiece
from fuseboard_streams.core.hooks import Follower, Heard
from fuseboard_streams.core.identity import Identities, Rejected
from fuseboard_streams.core.inputs import EVENT_ORDER, OVERRIDES, PANES, SIGNALS, TOOL_CALLS
from fuseboard_streams.core.intake import Intake
from fuseboard_streams.core.known import Known
from fuseboard_streams.core.layout import EPOCH_S
from fuseboard_streams.core.parts import Parts
from fuseboard_streams.core.piece import Piece, between_probes
from fuseboard_streams.core.rulebook import Rulebook
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.second_stage import SecondStage
from fuseboard_streams.core.settings import SECOND
from fuseboard_streams.core.state import ShardState
from fuseboard_streams.core.times import Times

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fuseboard_schemas.records import EnforcementAck, Override, Pane, Signal
    from fuseboard_streams.core.events import ActorEvents
    from fuseboard_streams.core.firing import Firing
    from fuseboard_streams.core.inputs import Inputs, Received
    from fuseboard_streams.core.mail import PaneOutput
    from fuseboard_streams.core.prepare import ToolCalls
    from fuseboard_streams.core.ruleset import RuleSet
    from fuseboard_streams.core.settings import CoreSettings, HashSeeds
    from fuseboard_streams.core.store import Delta

I64: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]


_NOBODY = Follower()
OWN_SOURCE = "fuseboard/"
"""What the sources of signals that shards publish themselves begin with."""


def is_echo(signal: Received[Signal]) -> bool:
    """Whether a shard published this signal itself."""
    return signal.record.source.startswith(OWN_SOURCE)


class Shard:
    """The state of one shard and the only code that changes it.

    Between `begin` and `commit` everything can be taken back with `rollback`. The result of a sequence of calls does
    not depend on how it is cut into batches.
    """

    def __init__(
        self,
        number: int,
        partitions: int,
        settings: CoreSettings,
        seeds: HashSeeds,
        rules: RuleSet | None = None,
        follower: Follower = _NOBODY,
    ) -> None:
        self.number = number
        self._partitions = partitions
        self._settings = settings
        self._book = Rulebook(settings, rules)
        self._state = ShardState(settings, self._book)
        state = self._state
        self._identities = Identities(
            number, partitions, settings, seeds, state.actors, state.tools, self._book, self._new_tools
        )
        self._breakers = Breakers(settings.breaker, -(-settings.max_session_breakers // partitions))
        self.counters = ShardCounters()
        self._second = SecondStage(
            number, partitions, self._book, state, self._identities, self._breakers, self.counters,
            settings.forget_after_us,
        )  # fmt: skip
        self._engine, self._clearing = self._watchers()
        self._decisions = Decisions(
            settings, state, self._identities, self._breakers, self.counters, self._book, self._engine, self._clearing,
            self._second,
        )  # fmt: skip
        self._second.rulings, self._second.note_hold = self._decisions.rulings, self._decisions.note_hold
        self._before_rules: RuleSet | None = None
        self._known = Known(settings, state, self._identities, self._breakers)
        self._intake = Intake(settings, state, self.counters)
        self._intake.count_each = self._engine.losses.wanted
        self._follower = follower
        self._told = {
            REQUESTS: follower.on_requests,
            DECISIONS: follower.on_decisions,
            TRACES: follower.on_steps,
        }
        self._times = Times()
        self._saved: tuple[Times, int, int | None, ShardCounters] = (self._times, 0, None, replace(self.counters))

    # --- rules

    @property
    def rules_version(self) -> str:
        """The rules that the shard's state is made under; empty while nobody has said."""
        return self._state.rules_version or ""

    @property
    def rules_in_force(self) -> str:
        """The version that what it decides carries."""
        return self._book.version

    @property
    def rules_offset(self) -> int | None:
        """Where in the topic ``rules`` those of `rules_version` were found; None if they are not from there."""
        return self._state.rules_offset

    def runs(self, version: str) -> bool:
        """Whether rules of a version are in force, and the state is made under them."""
        return self.rules_version == self.rules_in_force == version

    def change_rules(self, rules: RuleSet, text: bytes, offset: int | None = None) -> None:
        """Put other rules in force, inside a transaction and before anything is folded.

        Rules that the state is made under already, by a worker before this one, are gone on with.

        Holds of rules that are gone, or enforce no more, are released, but for those that wait for a person. What the
        new rules cannot go on with begins anew, each key at its next event.

        Args:
            rules: The new rules.
            text: The file that says so.
            offset: Where in the topic it was found; None if it is not from there.
        """
        self._before_rules = self._book.rules
        known = self.rules_version == rules.version
        engine, clearing = self._engine, self._clearing
        self._adopt(rules)
        if known:
            self._derive()
            return
        self._state.note_rules(rules.version, text, offset)
        self._engine.forget_unasked(engine, self.stream_time)
        clearing.leave(self._clearing, self.stream_time)
        released = self._breakers.release_where(self._book.gone, Moment(self.stream_time))
        self._decisions.rulings.publish(released)
        self._second.rules_changed(self.stream_time)
        self._clearing.restore(self._clearing.at)
        self._clearing.rules_changed(self.stream_time)

    def _adopt(self, rules: RuleSet) -> None:
        self._book.adopt(rules)
        self._state.adopt(self._book)
        at = self._clearing.at
        self._engine, self._clearing = self._watchers()
        self._clearing.at = at
        self._decisions.use(self._engine, self._clearing)
        self._second.adopt()
        self._intake.count_each = self._engine.losses.wanted
        self._engine.rebuild(self.stream_time)

    def _watchers(self) -> tuple[Engine, Clearing]:
        engine = Engine(self._settings, self._state, self._identities, self._book, self._breakers)
        return engine, Clearing(self._settings, engine.conditions, self._identities, self._breakers, self._state.actors)

    def _new_tools(self, rows: NDArray[np.int32], names: Sequence[tuple[str, str, str]]) -> None:
        self._second.pools.assign(rows, names)

    # --- a transaction

    def begin(self) -> None:
        """Open a transaction: from here on everything can be taken back."""
        self._state.begin()
        self._breakers.begin()
        names = len(self._identities.tool_names)
        self._saved = (self._times.copy(), names, self._clearing.at, replace(self.counters))

    def encode_changes(self, slice_bytes: int) -> Delta:
        """What this transaction changed, and the next slice of the rolling checkpoint, for the state log.

        Call it once, after the last fold; nothing may change between it and `commit` or `rollback`.
        """
        tools = self._saved[1]
        names = self._identities.tool_names[tools:]
        self._second.record(self._state.objects)
        self._breakers.virtual.drop_over(self.stream_time)
        self._state.record(self._times, dict(enumerate(names, tools)), self._breakers, {ASKED_AT: self._clearing.at})
        return self._state.encode_changes(slice_bytes)

    def commit(self) -> None:
        """Keep the changes since `begin`."""
        self._state.commit()
        self._breakers.commit()
        self._before_rules = None
        self._second.commit()

    def rollback(self) -> None:
        """Take back everything since `begin`."""
        self._state.rollback()
        self._breakers.rollback()
        self._times, tools, asked_at, counters = self._saved
        for field in fields(counters):
            setattr(self.counters, field.name, getattr(counters, field.name))
        self._identities.forget_tools(tools)
        self._decisions.rulings.take()
        self._intake.take_rejected()
        if self._before_rules is not None:
            self._adopt(self._before_rules)
            self._before_rules = None
        else:
            self._engine.rebuild(self.stream_time)
        self._clearing.restore(asked_at)
        self._second.load(self._state.objects)

    def apply(self, block: bytes) -> None:
        """Restore: take in one block of the state log, in log order."""
        self._state.apply(block)

    def finish_restore(self) -> None:
        """Make indexes and timers anew once all blocks are in."""
        self._times = self._state.finish_restore(self._identities, self._breakers)
        self._derive()

    def _derive(self) -> None:
        """Make anew what follows from the state and the rules in force."""
        self._clearing.restore(self._state.scalar(ASKED_AT))
        self._engine.rebuild(self.stream_time)
        self._second.load(self._state.objects)

    def go_on_under(self, rules: RuleSet) -> None:
        """Put restored state under the rules that it was made under.

        Args:
            rules: Those that `rules_version` names.
        """
        self._adopt(rules)
        self._derive()

    def take_panes(self) -> list[PaneOutput]:
        """What is to be sent to owners of tools and tenants since the last call, in order."""
        return self._second.take(self.stream_time)

    def take_outputs(self) -> list[Output]:
        """The signals and commands decided since the last call, in order."""
        return self._decisions.rulings.take()

    def take_rejected(self) -> list[Rejected]:
        """The records that the field rules refused since the last call."""
        return self._intake.take_rejected()

    def open_breakers(self) -> tuple[str, ...]:
        """The ids of the breakers that are not closed."""
        return self._breakers.open_ids()

    def tool_evidence(self) -> list[ToolEvidence]:
        """How every tool of every actor stands now, for people to look at."""
        tools, actors = self._state.tools, self._state.actors
        rows = places(tools.live)
        state = self._state.tool_statistic.load(rows)
        means = mean_r(fold_successes(state.r, state.p0, state.successes, self._book.tools.params(0).odds))
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

    @property
    def parts(self) -> Parts:
        """What the shard is made of, to be read only."""
        return Parts(
            self._settings, self.stream_time, self._state, self._identities, self._book, self._breakers, self._engine,
            self._second,
        )  # fmt: skip

    # --- time

    @property
    def stream_time(self) -> int:
        """Stream time in microseconds, 0 when nothing has been seen."""
        return self._times.stream

    @property
    def clock(self) -> int:
        """What time goes on from when no event comes, in microseconds; 0 if there is nothing to go by.

        That is stream time, and before the first event the time up to which all others are complete.
        """
        return self.stream_time or self._second.complete_us

    def advance(self, to_us: int) -> None:
        """Move stream time on without an event: the shard's inputs are at their end."""
        if to_us > self.clock > 0:
            self._run_timers(to_us)
            self._times.advance(to_us)

    def _run_timers(self, until_us: int) -> None:
        while True:
            second = self._second.next_due
            waiting = (self._breakers.next_due(), self._clearing.at, self._engine.next_tick, second)
            due = min((each for each in waiting if each is not None), default=None)
            if due is None or due > until_us:
                return
            if second == due:
                self._second.tick(due)
            self._decisions.fire(self._engine.advance(due), None)
            if self._clearing.at == due:
                self._clearing.run(due)
            self._decisions.rulings.publish(self._breakers.tick(due, partial(self._clients_of, now_us=due)))

    def _clients_of(self, tenant: str, actor: str, now_us: int) -> int:
        """How many clients of an actor were seen within the window before a time."""
        if not actor:
            return self._second.callers(tenant)
        row = self._identities.find_actor(tenant, actor)
        if row is None:
            return 0
        return self._state.clients_seen(row, now_us - self._settings.breaker.client_window_us)

    # --- folding

    def fold(self, inputs: Inputs) -> None:
        """Fold the next records of every input, topic by topic.

        The order is fixed: overrides, panes, session requests, policy decisions, steps of traces, tool calls, signals,
        acknowledgements. Signals come after the events, because they are about them. Within a topic it is that of the
        partition. A journal names the records of each transaction, so that the same order makes the same of them again.
        """
        if inputs.overrides:
            self.fold_overrides(inputs.overrides)
        if inputs.panes:
            self.fold_panes(inputs.panes)
        for topic in EVENT_ORDER:
            if topic in inputs.events:
                self.fold_events(inputs.events[topic])
        if inputs.calls is not None:
            self.fold_tool_calls(inputs.calls)
        if inputs.signals:
            self.fold_signals(inputs.signals)
        if inputs.acks:
            self.fold_acks([ack.record for ack in inputs.acks])

    def fold_signals(self, signals: Sequence[Received[Signal]]) -> None:
        """Fold the next signals that others published.

        What this and other shards publish themselves comes back here; it has had its effect and is passed over.
        """
        for each in signals:
            if is_echo(each):
                continue
            self.counters.events += 1
            self.counters.signals += 1
            heard = self._hear(each)
            if heard is not None:
                self.counters.late += heard.late
                if not heard.late:
                    for firing in self._engine.on_signal(heard.record, heard.stream):
                        self._decisions.heard(firing, heard.record.event_id, heard.offset, heard.ts)
                self._follower.on_signals((heard,))

    def _hear(self, each: Received[Signal]) -> Heard | None:
        """A signal that is let in; stream time moves on to it, and what is due before it happens."""
        signal = each.record
        problem = self._identities.refuse_signal(signal) or self._known.refuse(signal, self.stream_time)
        if problem is not None:
            self._intake.reject([Rejected(each.offset, *problem, SIGNALS)])
            return None
        ts, arrival = np.array([signal.ts]), np.array([each.arrival])
        placed = self._intake.place(SIGNALS, ts, arrival, self._times)
        stream = int(placed.stream[0])
        self._run_timers(stream)
        self._times.reach(SIGNALS, placed)
        if self._intake.repeated(SIGNALS, signal.client_id, signal.seq, stream // SECOND - EPOCH_S):
            return None
        # A guest that lost its state says all of it again, under the same ids and other numbers, or none.
        if not self._state.signals.add(signal.signal_id):
            self.counters.duplicates += 1
            return None
        return Heard(each.offset, int(placed.ts[0]), stream, bool(placed.late[0]), signal)

    def fold_panes(self, panes: Sequence[Received[Pane]]) -> None:
        """Fold the next panes. They are in their senders' time, and do not move this shard's stream time on.

        Nor do they begin it: the first event may be older than what others have passed. Until then it decides at their
        times.
        """
        for each in panes:
            self.counters.panes += 1
            problem = self._second.refuse(each.record)
            if problem is not None:
                self._intake.reject([Rejected(each.offset, *problem, PANES)])
                continue
            self._second.hear(each, self.stream_time or each.record.ts)

    def fold_events(self, events: ActorEvents) -> None:
        """Fold the next events of one topic that are no tool calls.

        Events that a field rule refuses change nothing and are handed out by `take_rejected`.
        """
        topic = events.topic
        self.counters.events += len(events)
        events = self._intake.usable(topic, events)
        actor, rejected = self._identities.actor_rows_of(events)
        if rejected:
            self._intake.reject(rejected)
            kept = actor >= 0
            events, actor = events.take(kept), actor[kept]
        if len(events) == 0:
            return
        placed = self._intake.place(topic, events.ts, events.arrival, self._times)
        client = self._intake.windows(topic, events.client, events.seq, actor)
        events = replace(events, ts=placed.ts, late=placed.late)
        whole = EventPiece(events, placed.stream, actor, client)
        for piece in self._pieces(whole.stream):
            self._fold_event_piece(whole.part(piece))
        self._times.reach(topic, placed)

    def fold_tool_calls(self, calls: ToolCalls) -> None:
        """Fold the next tool calls of this partition.

        Calls that a field rule refuses change nothing and are handed out by `take_rejected`.
        """
        self.counters.events += len(calls)
        calls = self._intake.usable(TOOL_CALLS, calls)
        tool, rejected = self._identities.rows_of(calls)
        if rejected:
            self._intake.reject(rejected)
            kept = tool >= 0
            calls, tool = calls.take(kept), tool[kept]
        if len(calls) == 0:
            return
        placed = self._intake.place(TOOL_CALLS, calls.ts, calls.arrival, self._times)
        actor = self._state.tools["actor"][tool].astype(np.int64)
        client = self._intake.windows(TOOL_CALLS, calls.client, calls.seq, actor)
        whole = Piece(calls, placed.ts, placed.stream, tool, actor, client, placed.late)
        for piece in self._pieces(whole.stream):
            self._fold_piece(whole if piece == slice(0, len(whole)) else whole.part(piece))
        self._times.reach(TOOL_CALLS, placed)

    def _pieces(self, stream: I64) -> Iterator[slice]:
        """Runs of events that no timer interrupts, given stream time at each; timers due run before each of them.

        Before anything else happens, what a run has made due for others is told: markers go by stream time.

        Args:
            stream: Shape (n,).
        """
        begin = 0
        while begin < len(stream):
            self._run_timers(int(stream[begin]))
            end = self._piece_end(stream, begin)
            yield slice(begin, end)
            self._second.tick(int(stream[end - 1]))
            begin = end

    def fold_acks(self, acks: Sequence[EnforcementAck]) -> None:
        """Remember which epoch of a breaker has been acknowledged by how many clients."""
        for ack in acks:
            self.counters.acks += 1
            if self._breakers.get(ack.breaker_id) is not None:
                self._state.acknowledge(ack.breaker_id, ack.epoch)
                self._breakers.acknowledge(ack.breaker_id, ack.epoch, Moment(self.stream_time))

    def fold_overrides(self, overrides: Sequence[Received[Override]]) -> None:
        """Carry out people's orders, each once: one whose id has been seen before is passed over.

        They do not move stream time on: in a shard that is behind, timers would run before the events that they wait
        for. Those that cannot be carried out change nothing and are handed out by `take_rejected`.
        """
        for each in overrides:
            offset, arrival, order = each.offset, each.arrival, each.record
            self.counters.overrides += 1
            problem = self._refused(order, arrival)
            if problem is None and self._state.orders.add(order.override_id):
                # A shard that has seen no call has no time of its own yet.
                now = self.stream_time or arrival
                if self._second.acknowledge(order, now):
                    continue
                target = Target(order.scope, order.tenant, order.actor, order.tool, order.trace_id)
                ordered = self._breakers.order(target, order, Moment(now, order.override_id, offset))
                for rule in ordered.let_go:
                    self._engine.let_go(target, rule)
                self._decisions.rulings.publish(ordered.changed)
                if ordered.refused is not None:
                    problem = DeadLetterReason.INVALID_FIELD, ordered.refused
            if problem is not None:
                self._intake.reject([Rejected(offset, *problem, OVERRIDES)])

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

    def _piece_end(self, stream: I64, begin: int) -> int:
        """Where the next timer known now falls due, or where one made from here on might."""
        limit = int(stream[begin]) + self._settings.piece_us
        stops = (
            self._breakers.next_due(),
            self._clearing.at,
            self._engine.next_stop,
            self._second.stop(int(stream[begin])),
        )
        for due in stops:
            limit = limit if due is None else min(limit, due)
        return max(int(np.searchsorted(stream, limit, side="left")), begin + 1)

    def _fold_piece(self, piece: Piece) -> None:
        state = self._state
        self._clearing.touched(piece.actor, piece.stream)
        if state.rules_version is not None:
            cold_tools, cold_actors = self._identities.renew(piece.tool, piece.actor)
            state.start_anew(state.tools, cold_tools)
            state.start_anew(state.actors, cold_actors)
        keys = (state.tools, piece.tool), (state.actors, piece.actor)
        self._second.arrive(piece)
        state.expire(piece.seconds, piece.client, *keys)
        fresh = self._intake.unseen(piece.client, piece.calls.seq, piece.seconds, *keys)
        self._engine.on_numbers(piece.actor, piece.stream, self._intake.numbers)
        if not fresh.all():
            piece = piece.part(fresh)
        self._second.note(piece)
        if len(piece) == 0:
            return
        self.counters.late += int(np.count_nonzero(piece.late))
        evicted = self._decisions.traces_evicted
        for part in between_probes(piece):
            self._decisions.fold(part, ~part.late)
        self.counters.traces_evicted += self._decisions.traces_evicted - evicted

    def _fold_event_piece(self, piece: EventPiece) -> None:
        self._clearing.touched(piece.actor, piece.stream)
        keys = ((self._state.actors, piece.actor),)
        self._state.expire(piece.seconds, piece.client, *keys)
        fresh = self._intake.unseen(piece.client, piece.events.seq, piece.seconds, *keys)
        if piece.events.topic != REQUESTS:
            # Those are numbered by the router, not by the actor.
            self._engine.on_numbers(piece.actor, piece.stream, self._intake.numbers)
        if not fresh.all():
            piece = piece.part(fresh)
        if len(piece) == 0:
            return
        self.counters.late += int(np.count_nonzero(piece.events.late))
        self._decisions.fire(self._find(piece), piece)
        self._told[piece.events.topic](piece.events, piece.stream, piece.actor)

    def _find(self, piece: EventPiece) -> list[Firing]:
        """What the rules find in events that are no tool calls."""
        events, on_time = piece.events, ~piece.events.late
        own = events.columns
        self._engine.objectives.on_events(piece, on_time)
        if events.topic == TRACES:
            return self._engine.on_steps(piece.actor, own[COST], events.ts, piece.stream, on_time)
        if events.topic == DECISIONS:
            return self._engine.on_decisions(piece, on_time)
        return self._engine.on_requests(piece, on_time)


__all__ = ["Output", "Rejected", "Shard", "ShardCounters", "ToolEvidence"]
