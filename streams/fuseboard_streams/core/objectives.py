"""What objectives are about, measured as events come in: coverage, success, violations, and what tasks cost.

Everything here belongs to one actor, whose events all come to one shard. What is per tool of a tenant is measured by
its owner (`tool_objectives.py`), and evaluations are tested run by run and not in the stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_schemas.records import Decision, DeniedBy, Mode, Scope, StepKind
from fuseboard_streams.core.coverage import Coverage, Named
from fuseboard_streams.core.denials import Denials
from fuseboard_streams.core.events import COST, DECISIONS, REQUESTS, TRACES
from fuseboard_streams.core.measured import Measured, owner_of
from fuseboard_streams.core.piece import OK, TIMEOUT
from fuseboard_streams.core.prepare import hashed
from fuseboard_streams.core.ruleset import COST as COSTS
from fuseboard_streams.core.ruleset import SUCCESS, TRACED, VIOLATING
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.tasks import Parts, Tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_streams.core.events import ActorEvents, EventPiece
    from fuseboard_streams.core.firing import Firing
    from fuseboard_streams.core.piece import Piece
    from fuseboard_streams.core.prepare import ToolCalls
    from fuseboard_streams.core.rulebook import Rulebook
    from fuseboard_streams.core.settings import CoreSettings
    from fuseboard_streams.core.state import ShardState

U64: TypeAlias = NDArray[np.uint64]
Bools: TypeAlias = NDArray[np.bool_]
Places: TypeAlias = NDArray[np.intp]

_BY_POLICY = tuple(DeniedBy).index(DeniedBy.POLICY)
_BY_BREAKER = tuple(DeniedBy).index(DeniedBy.BREAKER)
_DENY = tuple(Decision).index(Decision.DENY)
_IN_EFFECT = tuple(Mode).index(Mode.ENFORCE)
_END = tuple(StepKind).index(StepKind.SESSION_END)


class Objectives:
    """Measures the objectives of one shard's actors.

    Args:
        state: The shard's.
        book: The rules in force.
        settings: Of the shard.
        tool_name: A tool's name by its number.
    """

    def __init__(
        self, state: ShardState, book: Rulebook, settings: CoreSettings, tool_name: Callable[[int], str]
    ) -> None:
        self._tools = state.tools
        self._success = book.measuring(SUCCESS, Scope.ACTOR, Scope.ACTOR_TOOL)
        self._violating = book.measuring(VIOLATING)
        views = (*self._success, *self._violating)
        measured = Measured(
            state.measured,
            state.actors,
            (*views, *book.measuring(TRACED), *book.measuring(COSTS)),
            settings,
            state.refer,
            tool_name,
        )
        self._measured = measured
        self._coverage = Coverage(state.coverage, measured, book, settings, state.refer)
        self._tasks = Tasks(state.tasks, measured, book, settings, state.refer)
        self._denials = Denials(state.denials, settings, state.refer)
        self.wanted = bool(views or self._coverage.views or self._tasks.views)
        """Whether any objective asks."""

    # --- events

    def on_calls(self, piece: Piece, on_time: Bools) -> None:
        """A run of calls, probes among them."""
        if not self.wanted:
            return
        calls = piece.calls
        if self._coverage.views:
            self._coverage.heard(piece.actor, piece.ts, piece.stream, lambda at: _sessions(calls, at))
        if self._tasks.views:
            nothing = np.zeros(len(piece), dtype=np.bool_)
            parts = Parts(piece.actor, calls.trace, calls.cost, piece.stream, nothing)
            self._tasks.fold(parts.take(on_time))
        # What probes do is an experiment, and what a breaker refused is nobody's act.
        actions = places(on_time & ~calls.probe & (calls.denied_by != _BY_BREAKER))
        if self._success:
            self._on_results(piece, actions)
        if self._violating:
            self._on_actions(piece, actions)

    def _on_results(self, piece: Piece, actions: Places) -> None:
        outcome = piece.calls.outcome[actions]
        counted = outcome <= TIMEOUT
        at, failed = actions[counted], outcome[counted] != OK
        for view in self._success:
            tools = self._tools["tool"][piece.tool[at]] if view.rule.scope is Scope.ACTOR_TOOL else None
            self._measured.fold(view, owner_of(piece.actor[at], tools), piece.stream[at], failed)

    def _on_actions(self, piece: Piece, actions: Places) -> None:
        calls = piece.calls
        denied = calls.denied_by[actions] == _BY_POLICY
        if denied.any():
            at = actions[denied]
            spans = hashed(calls.frame, "span_id", calls.source[at])
            denied[denied] = self._denials.first(piece.actor[at], spans, piece.stream[at])
        for view in self._violating:
            self._measured.fold(view, owner_of(piece.actor[actions]), piece.stream[actions], denied)

    def on_events(self, piece: EventPiece, on_time: Bools) -> None:
        """A run of events that are no tool calls."""
        if not self.wanted:
            return
        events = piece.events
        if events.topic == REQUESTS:
            self._on_requests(piece, on_time)
            return
        if self._coverage.views:
            self._coverage.heard(piece.actor, events.ts, piece.stream, lambda at: _sessions(events, at))
        if events.topic == TRACES and self._tasks.views:
            self._on_steps(piece, places(on_time))
        if events.topic == DECISIONS and self._violating:
            self._on_decisions(piece, on_time)

    def _on_requests(self, piece: EventPiece, on_time: Bools) -> None:
        events = piece.events
        at = places(on_time & events.columns["accepted"].astype(np.bool_))
        if self._coverage.views and len(at):
            sessions = _sessions(events, at)
            named = Named(piece.actor[at], sessions, events.ts[at], piece.stream[at])
            self._coverage.requested(named.take(sessions != 0))

    def _on_steps(self, piece: EventPiece, at: Places) -> None:
        events, own = piece.events, piece.events.columns
        traces = hashed(events.frame, "trace_id", events.source[at])
        self._tasks.fold(Parts(piece.actor[at], traces, own[COST][at], piece.stream[at], own["kind"][at] == _END))

    def _on_decisions(self, piece: EventPiece, on_time: Bools) -> None:
        events, own = piece.events, piece.events.columns
        at = places((own["decision"] == _DENY) & (own["mode"] == _IN_EFFECT) & on_time)
        if len(at) == 0:
            return
        spans = hashed(events.frame, "span_id", events.source[at])
        at = at[self._denials.first(piece.actor[at], spans, piece.stream[at])]
        bad = np.ones(len(at), dtype=np.bool_)
        for view in self._violating:
            # The action itself is counted when its call comes.
            self._measured.fold(view, owner_of(piece.actor[at]), piece.stream[at], bad, counted=False)

    # --- time

    @property
    def next_tick(self) -> int | None:
        """When a tick may be due, a whole minute; None if there is none."""
        if not self.wanted:
            return None
        waiting = (self._measured.next_tick, self._tasks.next_tick)
        return min((each for each in waiting if each is not None), default=None)

    def advance(self, to_us: int) -> list[Firing]:
        """Run the tick at a time: which objectives have a new state."""
        if not self.wanted:
            return []
        self._tasks.advance(to_us)
        return self._measured.advance(to_us)

    def forget_unasked(self) -> None:
        """Drop what no objective in force asks for, in a transaction."""
        self._measured.forget()
        self._coverage.forget()
        if not self._violating:
            self._denials.forget()
        if not self._tasks.views:
            self._tasks.forget()

    def rebuild(self) -> None:
        """Make anew what follows from the tables, after a restore or a rollback."""
        self._measured.rebuild()
        self._tasks.rebuild()


def _sessions(events: ToolCalls | ActorEvents, at: Places) -> U64:
    """Hashes of the sessions that some events name, 0 for none."""
    return hashed(events.frame, "session_id", events.source[at])
