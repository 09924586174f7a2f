"""From a piece's calls to evidence, and from evidence to signals and commands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.arithmetic import log10
from fuseboard_detectors.segments import stable_order
from fuseboard_schemas.keys import Target, breaker_id
from fuseboard_schemas.records import Effect, Scope, SignalLevel
from fuseboard_streams.core.breaker import Breaker, Evidence, Moment
from fuseboard_streams.core.gates import Gates
from fuseboard_streams.core.piece import ERROR, OK, TIMEOUT, Piece
from fuseboard_streams.core.requests import Trip
from fuseboard_streams.core.rulings import Output, Rulings, trip_of, words_of
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.statistics import FAILURE, NOTHING, SUCCESS, TAKE_OUT, Entries, Finding
from fuseboard_streams.core.traces import TraceCap, trace_digest, trace_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fuseboard_streams.core.breakers import Breakers
    from fuseboard_streams.core.clearing import Clearing
    from fuseboard_streams.core.counters import ShardCounters
    from fuseboard_streams.core.engine import Engine
    from fuseboard_streams.core.events import EventPiece
    from fuseboard_streams.core.firing import Firing
    from fuseboard_streams.core.identity import Identities
    from fuseboard_streams.core.rulebook import FailureLevel, Rulebook
    from fuseboard_streams.core.second_stage import SecondStage
    from fuseboard_streams.core.settings import CoreSettings
    from fuseboard_streams.core.state import ShardState
    from fuseboard_streams.core.tables import Table

Bools: TypeAlias = NDArray[np.bool_]
Index: TypeAlias = NDArray[np.intp]

_EFFECTS = tuple(Effect)
_METRIC = "calls.failed"
_TICKS, _GATES, _PROBES, _TOOLS, _ACTORS, _RULES = range(6)
"""The order of what one call decides."""


@dataclass(slots=True)
class _Level:
    """One of the two statistics as this module sees it."""

    order: int
    scope: Scope
    table: Table
    cap: TraceCap
    rule: FailureLevel


@dataclass(slots=True)
class _Failures:
    """The failures of a piece that a statistic was offered."""

    at: Index
    """Positions in the piece."""
    keys: list[int | None]
    allowed: Bools


class Decisions:
    """Folds calls into the two statistics, and runs the breakers."""

    def __init__(
        self,
        settings: CoreSettings,
        state: ShardState,
        identities: Identities,
        breakers: Breakers,
        counters: ShardCounters,
        book: Rulebook,
        engine: Engine,
        clearing: Clearing,
        second: SecondStage,
    ) -> None:
        self._settings = settings
        self._state = state
        self._identities = identities
        self._breakers = breakers
        self._engine = engine
        self._clearing = clearing
        self._second = second
        self._counters = counters
        self.rulings = Rulings(breakers, settings.breaker, counters, self._thaw)
        self._book = book
        self._gates = Gates(state.tools, state.actors, book, breakers, identities.tool_names)
        self._pending: list[tuple[int, int, Callable[[], None]]] = []
        self._traces: dict[int, int | None] = {}
        self._tools = _Level(_TOOLS, Scope.ACTOR_TOOL, state.tools, state.tool_cap, book.tools)
        self._actors = _Level(_ACTORS, Scope.ACTOR, state.actors, state.actor_cap, book.actors)

    def use(self, engine: Engine, clearing: Clearing) -> None:
        """Follow other rules from now on."""
        self._engine, self._clearing = engine, clearing
        tools, actors = self._state.tools, self._state.actors
        self._gates = Gates(tools, actors, self._book, self._breakers, self._identities.tool_names)

    @property
    def traces_evicted(self) -> int:
        """Traces whose cap was re-armed because the table was full."""
        return self._state.tool_cap.evicted + self._state.actor_cap.evicted

    def fold(self, piece: Piece, on_time: Bools) -> None:
        """Fold one piece: its probe, then the tools' statistics, the actors', and what the rules find.

        The statistics take many calls at once, but nothing that is decided may overtake what comes before it: a probe
        comes alone (`Shard` cuts pieces around them).
        """
        for part in self._gates.short(piece):
            whole = part == slice(0, len(piece))
            self._fold(piece if whole else piece.part(part), on_time[part])

    def _fold(self, piece: Piece, on_time: Bools) -> None:
        outcome = piece.calls.outcome
        counted = on_time & (outcome <= TIMEOUT)
        probes = counted & piece.calls.probe
        if probes.any():
            self._counters.probes += int(np.count_nonzero(probes))
            for at in places(probes).tolist():
                self._probe(piece, at)
            counted &= ~probes
        counting = self._second.counting(piece)
        if counting is not None:
            counted &= counting
        failed = places(counted & (outcome != OK))
        names = piece.calls.strings("trace_id", failed) if len(failed) else []
        self._traces = {
            at: trace_digest(name) if name else None for at, name in zip(failed.tolist(), names, strict=True)
        }
        if self._may_evict(len(failed)):
            # One failure at a time: what it evicts decides about the next.
            ends = places(counted & (outcome != OK)) + 1
            for a, b in pairwise((0, *ends.tolist(), len(piece))):
                some = np.zeros(len(piece), dtype=np.bool_)
                some[a:b] = counted[a:b]
                self._fold_statistics(piece, some)
        else:
            self._fold_statistics(piece, counted)
        # One call may end a probe, trip its tool and its actor, in this order; calls are in the order of the log.
        for firing in sorted(self._engine.on_calls(piece, on_time), key=lambda each: each.order):
            # A tick comes before the event that follows it, the rules after the statistics.
            order = _TICKS if firing.decided is None else _RULES
            self._pending.append((firing.position, order, partial(self._fire, firing, piece)))
        for at in self._gates.candidates(piece, on_time).tolist():
            self._pending.append((at, _GATES, partial(self._judge, piece, at)))
        since = self._second.refusing(piece)
        if since is not None:
            for at in self._gates.doubtful(piece, on_time, since).tolist():
                self._pending.append((at, _GATES, partial(self._doubt, piece, at, int(since[at]))))
        for _, _, publish in sorted(self._pending, key=lambda p: (p[0], p[1])):
            publish()
        self._pending.clear()

    def fire(self, firings: Sequence[Firing], piece: Piece | EventPiece | None) -> None:
        """Take what rules found in a run of events, or at a tick, in its order."""
        for firing in sorted(firings, key=lambda each: each.order):
            self._fire(firing, piece)

    def _fire(self, firing: Firing, piece: Piece | EventPiece | None) -> None:
        at = firing.decided
        if piece is None or at is None:
            self.heard(firing, None, None, None)
            return
        events = piece.calls if isinstance(piece, Piece) else piece.events
        event_id = events.strings("event_id", np.array([at]))[0]
        made = _began(piece, at) if isinstance(piece, Piece) else int(piece.events.ts[at])
        self.heard(firing, event_id, int(events.offset[at]), made)

    def heard(self, firing: Firing, event_id: str | None, offset: int | None, made_us: int | None) -> None:
        """Take what a rule found in one record that was made at a time, microseconds, or at a tick."""
        trip = trip_of(firing, event_id, offset, made_us)
        if trip.warning or trip.level is not None:
            self.rulings.say(trip)
        elif not self._second.ask(trip):
            self.rulings.fire(trip)
            self._clearing.note(firing)

    def note_hold(self, identity: str, rule: str, now_us: int) -> None:
        """A rule has begun to hold a breaker after all."""
        self._clearing.hold(identity, rule, now_us)

    def _judge(self, piece: Piece, at: int) -> None:
        """Whether a call passed a gate that was shut, by the breakers as they are before it."""
        self.fire(self._gates.judge(piece, at), piece)

    def _doubt(self, piece: Piece, at: int, since: int) -> None:
        """Whether a call passed its tool's own breaker, as far as this shard has heard of that."""
        self._second.doubt(self._gates.doubts(piece, at, since))

    def _may_evict(self, failures: int) -> bool:
        return self._tools.cap.nearly_full(failures) or self._actors.cap.nearly_full(failures)

    # --- the two statistics

    def _fold_statistics(self, piece: Piece, counted: Bools) -> None:
        at = self._usable(self._tools, piece, piece.tool, counted)
        # Calls of tools without a statistic of their own are their actor's all the same.
        theirs = self._usable(self._tools, piece, piece.tool, counted, without_rule=True)
        taken: list[tuple[int, int]] = []
        if len(at):
            at, taken = self._fold_tools(piece, at)
        elif len(theirs) == 0:
            return
        self._fold_actors(piece, np.concatenate((at, theirs)), taken)

    def _fold_tools(self, piece: Piece, at: Index) -> tuple[Index, list[tuple[int, int]]]:
        """Returns which of the calls count for their actors too, and where which tool reached the warn level."""
        failures = self._cap(self._tools, piece, piece.tool, at)
        kind = np.full(len(at), SUCCESS, dtype=np.uint8)
        failed = piece.calls.outcome[at] != OK
        kind[failed] = np.where(failures.allowed, FAILURE, NOTHING)
        tool = self._state.tools["tool"][piece.tool[at]]
        entries = Entries(piece.tool[at].astype(np.int32), kind, piece.ts[at], tool)
        findings, included = self._state.tool_statistic.run(entries, want_included=True)
        self._count_failures(self._tools, piece, piece.tool, failures, at, findings)
        offered = _until_trips(entries, findings)
        self._counters.capped += int(np.count_nonzero(offered & (kind == NOTHING)))
        self._counters.counted += int(np.count_nonzero(offered & (kind != NOTHING)))
        taken = [(int(at[f.entry]), int(tool[f.entry])) for f in findings if f.warned]
        return at if included is None else at[included], taken

    def _fold_actors(self, piece: Piece, at: Index, taken: Sequence[tuple[int, int]]) -> None:
        level = self._actors
        keep = np.zeros(len(piece), dtype=np.bool_)
        keep[at] = True
        at = self._usable(level, piece, piece.actor, keep)
        failures = self._cap(level, piece, piece.actor, at)
        failed = piece.calls.outcome[at] != OK
        kind = np.where(failed, FAILURE, SUCCESS).astype(np.uint8)
        keep = np.ones(len(at), dtype=np.bool_)
        keep[places(failed)[~failures.allowed]] = False
        at, kind = at[keep], kind[keep]
        tool = self._state.tools["tool"][piece.tool[at]]
        if taken:
            at, kind, tool = self._with_take_outs(piece, at, kind, tool, taken)
        if len(at) == 0:
            return
        entries = Entries(piece.actor[at].astype(np.int32), kind, piece.ts[at], tool)
        findings, _ = self._state.actor_statistic.run(entries, want_included=False)
        self._count_failures(level, piece, piece.actor, failures, at, findings)

    def _with_take_outs(
        self,
        piece: Piece,
        at: Index,
        kind: NDArray[np.uint8],
        tool: NDArray[np.int32],
        taken: Sequence[tuple[int, int]],
    ) -> tuple[Index, NDArray[np.uint8], NDArray[np.int32]]:
        """Add an entry for each tool that reached the warn level, where it did: that call itself is not included."""
        frozen = self._state.actors["frozen"]
        taken = [(position, number) for position, number in taken if not frozen[piece.actor[position]]]
        where = np.array([position for position, _ in taken], dtype=np.intp)
        numbers = np.array([number for _, number in taken], dtype=np.int32)
        joined = np.concatenate((at, where))
        order = stable_order(joined)
        kinds = np.concatenate((kind, np.full(len(where), TAKE_OUT, dtype=np.uint8)))
        return joined[order], kinds[order], np.concatenate((tool, numbers))[order]

    def _usable(
        self,
        level: _Level,
        piece: Piece,
        rows: NDArray[np.int64],
        counted: Bools,
        *,
        without_rule: bool = False,
    ) -> Index:
        """The calls that enter a statistic: its breaker is closed, and was when they began.

        With ``without_rule`` those of the other keys, which no rule is for.
        """
        if without_rule and not level.rule.partial:
            return places(np.zeros(0, dtype=np.bool_))
        closed = (level.table["frozen"][rows] == 0) & (piece.start > level.table["closed_at"][rows])
        if level.rule.partial:
            closed &= (level.table["rule"][rows] < 0) == without_rule
        return places(counted & closed)

    def _cap(self, level: _Level, piece: Piece, rows: NDArray[np.int64], at: Index) -> _Failures:
        failed = at[piece.calls.outcome[at] != OK]
        if len(failed) == 0:
            return _Failures(failed, [], np.ones(0, dtype=np.bool_))
        traces = self._traces
        keys = [
            trace_key(row, digest) if (digest := traces[position]) is not None else None
            for position, row in zip(failed.tolist(), rows[failed].tolist(), strict=True)
        ]
        return _Failures(failed, keys, level.cap.decide(keys, piece.stream[failed].tolist()))

    def _count_failures(
        self,
        level: _Level,
        piece: Piece,
        rows: NDArray[np.int64],
        failures: _Failures,
        at: Index,
        findings: Sequence[Finding],
    ) -> None:
        """Publish what was found, and use up the caps of the traces whose failures were counted."""
        ended: dict[int, int] = {}
        for finding in findings:
            position = int(at[finding.entry])
            if finding.tripped:
                ended[finding.row] = position
            self._found(level, piece, position, finding)
        counted = [
            i
            for i in places(failures.allowed).tolist()
            if int(failures.at[i]) <= ended.get(int(rows[failures.at[i]]), len(piece))
        ]
        times = piece.stream[failures.at].tolist()
        level.cap.count([failures.keys[i] for i in counted], [times[i] for i in counted])

    # --- what was found

    def _found(self, level: _Level, piece: Piece, at: int, finding: Finding) -> None:
        target = self._target(level, finding.row)
        moment = self._moment(piece, at)
        evidence = Evidence(
            round(float(log10(np.array([finding.mean]))[0]), 6),
            finding.p0,
            finding.calls,
            finding.failures,
            finding.since,
        )
        if finding.tripped:
            level.table.touch("stat", np.array([finding.row]))
            level.table["frozen"][finding.row] = 1
        else:
            self._counters.warnings += 1
        self._pending.append((at, level.order, lambda: self._announce(level, target, moment, evidence, finding)))

    def _announce(self, level: _Level, target: Target, moment: Moment, evidence: Evidence, finding: Finding) -> None:
        response = level.rule.response(int(level.table["rule"][finding.row]))
        reason = words_of(target, evidence, moment.time_us)
        value = finding.failures / finding.calls
        if not finding.tripped:
            self.rulings.signal(SignalLevel.WARN, target, moment, response, _METRIC, value, evidence, reason)
            return
        if self._second.ask(Trip(target, response, _METRIC, moment, evidence, value, "")):
            return
        fired = self._breakers.fire(target, moment, response, evidence)
        self.rulings.told(fired, target, moment, response, _METRIC, value, evidence, reason)
        identity = breaker_id(target.scope, target.tenant, target.actor, target.tool)
        self._resume(level, finding.row, self._breakers.get(identity), moment.time_us)

    def _resume(self, level: _Level, row: int, breaker: Breaker | None, now_us: int) -> None:
        """Let a statistic that has just tripped go on where its rule only watches, or can still climb.

        Not before this piece is over, wherever it was cut: the statistic has taken none of the calls behind the trip.
        """
        if not self._rests(level, breaker):
            level.table.touch("stat", np.array([row]))
            level.table["frozen"][row] = 0
            level.table["closed_at"][row] = now_us + self._settings.piece_us

    def _rests(self, level: _Level, breaker: Breaker | None) -> bool:
        """Whether firing again would change nothing: the statistic of a tool that is off learns nothing."""
        held = None if breaker is None or level.rule.name is None else breaker.hold_of(level.rule.name)
        return held is not None and not held.listens

    def _thaw(self, breaker: Breaker) -> None:
        """Let the statistic of a breaker's target go on, or rest, as the hold of its rule says."""
        self._second.changed(breaker)
        tenant, actor = breaker.tenant, breaker.actor
        if breaker.scope is Scope.ACTOR_TOOL and actor is not None and breaker.tool is not None:
            level, row = self._tools, self._identities.find_tool(tenant, actor, breaker.tool)
        elif breaker.scope is Scope.ACTOR and actor is not None:
            level, row = self._actors, self._identities.find_actor(tenant, actor)
        else:
            return
        if row is not None:
            self._gates.note(level.table, row, breaker)
        if row is not None and not self._second.asked(breaker.breaker_id, level.rule.name):
            self._follow(level, row, breaker)

    def _follow(self, level: _Level, row: int, breaker: Breaker) -> None:
        """When its rule's hold is gone, or can climb, a statistic goes on with the calls that begin from then on."""
        frozen = self._rests(level, breaker)
        if bool(level.table["frozen"][row]) == frozen:
            return
        level.table.touch("stat", np.array([row]))
        level.table["frozen"][row] = frozen
        if not frozen:
            level.table["closed_at"][row] = breaker.decided_at

    def _target(self, level: _Level, row: int) -> Target:
        state = self._state
        if level.scope is Scope.ACTOR:
            return Target(Scope.ACTOR, str(state.actors["tenant"][row]), str(state.actors["actor"][row]))
        owner = int(state.tools["actor"][row])
        tool = self._identities.tool_names[int(state.tools["tool"][row])]
        return Target(Scope.ACTOR_TOOL, str(state.actors["tenant"][owner]), str(state.actors["actor"][owner]), tool)

    def _moment(self, piece: Piece, at: int) -> Moment:
        event_id = piece.calls.strings("event_id", np.array([at]))[0]
        return Moment(int(piece.stream[at]), event_id, int(piece.calls.offset[at]), _began(piece, at))

    # --- probes

    def _probe(self, piece: Piece, at: int) -> None:
        """A probe's result counts only for a breaker of its own tool or actor, and never of an irreversible call."""
        where = np.array([at])
        gate = piece.calls.strings("gate_breaker", where)[0]
        epoch = piece.calls.strings("gate_epoch", where)[0]
        effect = _EFFECTS[piece.calls.effect[at]]
        for level, row in ((self._tools, int(piece.tool[at])), (self._actors, int(piece.actor[at]))):
            target = self._target(level, row)
            identity = breaker_id(target.scope, target.tenant, target.actor, target.tool)
            if identity == gate and epoch is not None and self._breakers.can_be_probe(identity, effect):
                held = self._breakers.get(identity)
                rules = () if held is None else [hold.rule for hold in held.holds]
                failed = int(piece.calls.outcome[at]) in (ERROR, TIMEOUT)
                ok = not failed and not self._engine.exceeds(rules, piece, at)
                changed = self._breakers.probe(identity, int(epoch), ok, self._moment(piece, at))
                for breaker in changed:
                    # At once: the calls of this piece that begin after it count already.
                    self._thaw(breaker)
                if changed:
                    self._pending.append((at, _PROBES, partial(self.rulings.publish, changed)))


def _began(piece: Piece, at: int) -> int:
    """When a call began, microseconds."""
    return int(piece.ts[at]) - max(int(piece.calls.duration[at]), 0)


def _until_trips(entries: Entries, findings: Sequence[Finding]) -> Bools:
    """The entries that a statistic took: all but those of a key after it tripped."""
    taken = np.ones(len(entries.row), dtype=np.bool_)
    for finding in findings:
        if finding.tripped:
            taken[finding.entry + 1 :] &= entries.row[finding.entry + 1 :] != finding.row
    return taken


__all__ = ["Decisions", "Output"]
