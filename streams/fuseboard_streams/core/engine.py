"""What the rules find beside the failure statistic, each kind in its own module, and in others' signals. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fuseboard_schemas.keys import Target, breaker_id, parse_breaker_id
from fuseboard_schemas.records import Decision, DeniedBy, Mode, Scope, Severity, SignalLevel
from fuseboard_streams.core.exceeding import Exceeding, Measured
from fuseboard_streams.core.firing import Facts, Firing
from fuseboard_streams.core.first_use import FirstUses, Uses
from fuseboard_streams.core.hard_caps import HardCaps
from fuseboard_streams.core.losses import Losses
from fuseboard_streams.core.objectives import Objectives
from fuseboard_streams.core.piece import OK, TIMEOUT
from fuseboard_streams.core.prepare import stable_hash
from fuseboard_streams.core.rulebook import NONE
from fuseboard_streams.core.ruleset import SignalTest
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.sessions import SessionCalls, Sessions
from fuseboard_streams.core.silence import Silence
from fuseboard_streams.core.spending import Costs, Spending
from fuseboard_streams.core.traces import trace_digest
from fuseboard_streams.core.violating import Actions, Violating
from fuseboard_streams.core.violations import SEVERITIES, Hits, Violations
from fuseboard_streams.rules.patterns import fits

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fuseboard_schemas.records import Signal
    from fuseboard_streams.core.breakers import Breakers
    from fuseboard_streams.core.clearing import StillOn
    from fuseboard_streams.core.events import EventPiece
    from fuseboard_streams.core.identity import Identities
    from fuseboard_streams.core.intake import Numbers
    from fuseboard_streams.core.piece import Piece
    from fuseboard_streams.core.rulebook import Rulebook, RuleView
    from fuseboard_streams.core.settings import CoreSettings
    from fuseboard_streams.core.state import ShardState

I64: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

_GUESTS: Final = "signals."
"""How the metrics of rules about signals begin; whoever publishes one may leave it out."""
_BY_POLICY = tuple(DeniedBy).index(DeniedBy.POLICY)
_BY_BREAKER = tuple(DeniedBy).index(DeniedBy.BREAKER)
_DENY = tuple(Decision).index(Decision.DENY)
_IN_EFFECT = tuple(Mode).index(Mode.ENFORCE)
_TICKET = SEVERITIES.index(Severity.TICKET)


class Engine:
    """Runs every test but the failure statistic over runs of events."""

    def __init__(
        self, settings: CoreSettings, state: ShardState, identities: Identities, book: Rulebook, breakers: Breakers
    ) -> None:
        self._state = state
        self._identities = identities
        self._breakers = breakers
        hard_caps = HardCaps(state.capped, state.actors, book, state.refer, self._settled)
        self.spending = Spending(state.spends, state.actors, book, hard_caps, state.objects, self._settled)
        self.violations = Violations(state.violators, state.actors, book, settings, state.refer)
        self.sessions = Sessions(state.sessions, state.actors, book, settings, self._settled)
        self.first_uses = FirstUses(state.tools, state.actors, book)
        self.losses = Losses(state.losses, state.actors, book, settings, state.refer)
        self.silence = Silence(state.requests, state.actors, book, settings)
        self.exceeding = Exceeding(
            state.references, state.histograms, state.observed, book, settings, self._tool_names, state.refer_tools
        )
        self.violating = Violating(state.violating, state.denied, book, settings, self._actor_names, state.refer)
        self.objectives = Objectives(state, book, settings, lambda number: identities.tool_names[number])
        self._signals = book.asking(SignalTest)

    # --- events

    def on_calls(self, piece: Piece, on_time: Bools) -> list[Firing]:
        """A piece of calls, probes among them."""
        calls = piece.calls
        self.objectives.on_calls(piece, on_time)
        self.silence.heard(piece.actor, piece.ts)
        found = self._spent(Costs(piece.actor, calls.cost, piece.ts, piece.stream, on_time))
        if self.exceeding.wanted:
            found += self._measured_calls(piece, places(on_time & ~calls.probe & (calls.outcome <= TIMEOUT)))
        denials = self.violations.wanted or self.violating.wanted
        if not (denials or self.sessions.wanted or self.first_uses.wanted):
            return found
        actions = on_time & ~calls.probe & (calls.denied_by != _BY_BREAKER)
        if denials:
            found += self._violating_calls(piece, places(actions))
        if self.sessions.wanted:
            found += self._session_calls(piece, actions)
        if self.first_uses.wanted:
            found += self._first_uses(piece, places(actions))
        return found

    def on_steps(self, actor: Rows, micro_usd: I64, ts: I64, stream: I64, on_time: Bools) -> list[Firing]:
        """A run of trace steps: what models cost."""
        self.silence.heard(actor, ts)
        return self._spent(Costs(actor, micro_usd, ts, stream, on_time))

    def on_decisions(self, piece: EventPiece, on_time: Bools) -> list[Firing]:
        """A run of policy decisions."""
        events = piece.events
        self.silence.heard(piece.actor, events.ts)
        found = self._time_passes(piece.stream)
        own = events.columns
        denied = places((own["decision"] == _DENY) & (own["mode"] == _IN_EFFECT) & on_time)
        if len(denied) == 0 or not (self.violations.wanted or self.violating.wanted):
            return found
        names = events.strings("trace_id", denied)
        traces = _digests(names, events.offset[denied])
        actor, ts, stream = piece.actor[denied], events.ts[denied], piece.stream[denied]
        if self.violations.wanted:
            hits = Hits(denied, actor, traces, own["severity"][denied], ts, stream)
            found += self.violations.fold(hits, np.empty(0, dtype=np.int64))
        if self.violating.wanted:
            everyone = np.ones(len(denied), dtype=np.bool_)
            own_traces = np.where(_named(names), traces, np.uint64(0))
            seconds = piece.seconds[denied]
            found += self.violating.fold(Actions(denied, actor, everyone, own_traces, ts, ts, seconds, stream))
        return found

    def on_requests(self, piece: EventPiece, on_time: Bools) -> list[Firing]:
        """A run of session requests."""
        events = piece.events
        accepted = on_time & events.columns["accepted"].astype(np.bool_)
        self.silence.requested(piece.actor, events.ts, piece.stream, accepted)
        return self._time_passes(piece.stream)

    def on_numbers(self, actor: Rows, stream: I64, numbers: Numbers | None) -> None:
        """What the numbers of a run of an actor's own events show to be missing, repeats among them."""
        if numbers is not None:
            self.losses.fold(actor[numbers.at], numbers.expected, numbers.gaps, stream[numbers.at])

    def _time_passes(self, stream: I64) -> list[Firing]:
        return self.spending.pass_time(stream) if self.spending.wanted else []

    def _spent(self, costs: Costs) -> list[Firing]:
        return self.spending.fold(costs) if self.spending.wanted else []

    def on_signal(self, signal: Signal, now_us: int) -> list[Firing]:
        """Somebody else's finding."""
        if signal.level is SignalLevel.INFO:
            return []
        found = []
        for view in self._signals:
            number = self._fitting(view, signal)
            if number != NONE:
                target = target_of(signal)
                facts = Facts(
                    signal.reason or f"{signal.source} found {signal.metric}",
                    signal.value, signal.calls, signal.failures, signal.since,
                )  # fmt: skip
                found.append(Firing(0, now_us, view, number, target, facts, decided=0))
        return found

    def _fitting(self, view: RuleView, signal: Signal) -> int:
        if view.rule.scope is not signal.scope or view.rule.metric.removeprefix(_GUESTS) != signal.metric.removeprefix(
            _GUESTS
        ):
            return NONE
        number = view.number(signal.tenant, signal.actor or "", signal.tool or "")
        if number == NONE:
            return NONE
        test = view.test(number, SignalTest)
        heard = fits(test.source, signal.source)
        strong = signal.level is SignalLevel.TRIP or not test.trip_only
        return number if heard and strong else NONE

    def exceeds(self, rules: Collection[str], piece: Piece, at: int) -> bool:
        """Whether a call is as slow, or costs as much, as one of these rules holds its tool for."""
        calls = piece.calls
        return self.exceeding.exceeds(rules, int(piece.tool[at]), int(calls.duration[at]), int(calls.cost[at]))

    # --- time

    def advance(self, to_us: int) -> list[Firing]:
        """Run the ticks that are still to come, if they lie at or before a time."""
        watching = (self.spending, self.losses, self.silence, self.objectives)
        return [firing for each in watching for firing in each.advance(to_us)]

    @property
    def next_tick(self) -> int | None:
        """When a tick is due; None if there is none."""
        return _sooner(self.spending.next_tick, self.next_stop)

    @property
    def next_stop(self) -> int | None:
        """When a tick is due that no run of events may go beyond; None if there is none."""
        return _sooner(_sooner(self.losses.next_tick, self.silence.next_tick), self.objectives.next_tick)

    @property
    def conditions(self) -> tuple[tuple[RuleView, StillOn], ...]:
        """The rules about an actor whose condition may last, and who says whether it is still on."""
        return (
            *((view, self.spending.still_on) for view in self.spending.burns),
            *((view, self.losses.still_on) for view in self.losses.views),
            *((view, self.silence.still_on) for view in self.silence.views),
        )

    def forget_unasked(self, before: Engine, now_us: int) -> None:
        """Drop what no rule goes on with, in a transaction: call it when other rules have come into force.

        It would not be kept up, so that a rule of its kind that comes back would go on with what was true once.

        Args:
            before: what ran the rules before.
            now_us: stream time.
        """
        for each in (self.first_uses, self.silence):
            if not each.wanted:
                each.forget()
        self.losses.forget_unasked()
        self.spending.change(before.spending.bases, now_us)
        self.violations.forget_unasked()
        self.sessions.forget_unasked()
        self.exceeding.forget()
        self.violating.forget()
        self.objectives.forget_unasked()

    def let_go(self, target: Target, rule: str) -> None:
        """A person has released a rule's hold: what it found before does not count against the target again."""
        actor = self._identities.find_actor(target.tenant, target.actor or "")
        if actor is None:
            return
        if target.scope is Scope.ACTOR:
            self.violations.forget(rule, actor)
        elif target.scope is Scope.SESSION:
            trace = int(stable_hash(pl.Series([target.trace_id], dtype=pl.String))[0])
            self.sessions.forget(rule, actor, trace)

    def _settled(self, view: RuleView, number: int, target: Target, now_us: int, until_us: int | None) -> bool:
        return self._breakers.settled(target, view.variants[number].response, now_us, until_us)

    def rebuild(self, stream_time: int) -> None:
        """Make anew what follows from the tables, after a restore or a rollback."""
        self.spending.rebuild(stream_time)
        self.losses.rebuild()
        self.silence.rebuild()
        self.objectives.rebuild()

    # --- calls

    def _violating_calls(self, piece: Piece, actions: NDArray[np.intp]) -> list[Firing]:
        actors = piece.actor[actions]
        refused = places(piece.calls.denied_by[actions] == _BY_POLICY)
        where = actions[refused]
        names = piece.calls.strings("trace_id", where) if len(where) else []
        traces = _digests(names, piece.calls.offset[where])
        found: list[Firing] = []
        if self.violations.wanted:
            severity = np.full(len(where), _TICKET, dtype=np.uint8)
            hits = Hits(refused, actors[refused], traces, severity, piece.ts[where], piece.stream[where])
            found += [_moved(firing, actions) for firing in self.violations.fold(hits, actors)]
        if self.violating.wanted:
            denied, trace = np.zeros(len(actions), dtype=np.bool_), np.zeros(len(actions), dtype=np.uint64)
            denied[refused], trace[refused] = True, np.where(_named(names), traces, np.uint64(0))
            found += self.violating.fold(
                Actions(
                    actions, actors, denied, trace, piece.ts[actions], piece.start[actions], piece.seconds[actions],
                    piece.stream[actions],
                )
            )  # fmt: skip
        return found

    def _measured_calls(self, piece: Piece, at: NDArray[np.intp]) -> list[Firing]:
        calls = piece.calls
        if len(at) == 0:
            return []
        measured = Measured(
            at, piece.tool[at], calls.traces(at), calls.duration[at], calls.cost[at], piece.ts[at], piece.start[at],
            piece.seconds[at], piece.stream[at],
        )  # fmt: skip
        return self.exceeding.fold(measured)

    def _session_calls(self, piece: Piece, actions: Bools) -> list[Firing]:
        calls = piece.calls
        at = places(actions & (calls.outcome <= TIMEOUT) & (calls.trace != 0))
        if len(at) == 0:
            return []
        chosen = SessionCalls(
            at,
            piece.actor[at],
            calls.trace[at],
            self._state.tools["tool"][piece.tool[at]].astype(np.int64),
            calls.arguments[at],
            calls.outcome[at] != OK,
            piece.seconds[at],
            piece.stream[at],
        )
        return self.sessions.fold(
            chosen,
            lambda number: self._identities.tool_names[number],
            lambda position: calls.strings("trace_id", np.array([position]))[0] or "",
        )

    def _first_uses(self, piece: Piece, at: NDArray[np.intp]) -> list[Firing]:
        uses = Uses(at, piece.actor[at], piece.tool[at], piece.stream[at])
        return self.first_uses.fold(uses, lambda number: self._identities.tool_names[number])

    def _actor_names(self, row: int) -> tuple[str, str, str]:
        actors = self._state.actors
        return str(actors["tenant"][row]), str(actors["actor"][row]), ""

    def _tool_names(self, row: int) -> tuple[str, str, str]:
        tools = self._state.tools
        tenant, actor, _ = self._actor_names(int(tools["actor"][row]))
        return tenant, actor, self._identities.tool_names[int(tools["tool"][row])]


def target_of(signal: Signal) -> Target:
    """What a signal is about: what its scope does not need is no part of it."""
    return parse_breaker_id(breaker_id(signal.scope, signal.tenant, signal.actor, signal.tool, signal.trace_id))


def _sooner(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)


def _digests(traces: Sequence[str | None], offset: I64) -> NDArray[np.uint64]:
    """A number for each trace; an event without one is a trace of its own."""
    names = (trace or f"#{at}" for trace, at in zip(traces, offset.tolist(), strict=True))
    return np.array([trace_digest(name) for name in names], dtype=np.uint64)


def _named(traces: Sequence[str | None]) -> Bools:
    """Which events have a trace."""
    return np.array([bool(trace) for trace in traces], dtype=np.bool_)


def _moved(firing: Firing, actions: NDArray[np.intp]) -> Firing:
    at = int(actions[firing.position])
    return Firing(
        at, firing.time_us, firing.view, firing.variant, firing.target, firing.facts, decided=at,
        until_us=firing.until_us,
    )  # fmt: skip
