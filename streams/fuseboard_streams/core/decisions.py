"""From a piece's calls to evidence, and from evidence to signals and commands."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.arithmetic import log10
from fuseboard_schemas.keys import Target, actor_key, breaker_id
from fuseboard_schemas.records import Action, BreakerCommand, Effect, Scope, Signal, SignalLevel
from fuseboard_streams.core.breaker import Breaker, Evidence, Moment
from fuseboard_streams.core.commands import describe_evidence, to_command
from fuseboard_streams.core.piece import ERROR, OK, TIMEOUT, Piece
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.statistics import FAILURE, NOTHING, SUCCESS, TAKE_OUT, Entries, Finding
from fuseboard_streams.core.traces import TraceCap, trace_digest, trace_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fuseboard_streams.core.breakers import Breakers
    from fuseboard_streams.core.counters import ShardCounters
    from fuseboard_streams.core.identity import Identities
    from fuseboard_streams.core.ruleset import Response
    from fuseboard_streams.core.settings import CoreSettings
    from fuseboard_streams.core.state import ShardState
    from fuseboard_streams.core.tables import Table

Bools: TypeAlias = NDArray[np.bool_]
Index: TypeAlias = NDArray[np.intp]

_EFFECTS = tuple(Effect)
_TOOLS, _ACTORS = 0, 1
"""The order of what one call decides besides its probe, which comes first."""


@dataclass(frozen=True, slots=True)
class Output:
    """A record to publish, to the partition of its shard."""

    topic: str
    """``signals`` or ``breaker_commands``."""
    key: bytes
    record: Signal | BreakerCommand | None
    """None is a tombstone."""


@dataclass(slots=True)
class _Level:
    """One of the two statistics as this module sees it."""

    order: int
    scope: Scope
    response: Response
    table: Table
    cap: TraceCap


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
    ) -> None:
        self._settings = settings
        self._state = state
        self._identities = identities
        self._breakers = breakers
        self._counters = counters
        self._outputs: list[Output] = []
        self._pending: list[tuple[int, int, Callable[[], None]]] = []
        self._traces: dict[int, int | None] = {}
        disable, read_only = (settings.response(action) for action in (Action.DISABLE_TOOL, Action.READ_ONLY))
        self._tools = _Level(_TOOLS, Scope.ACTOR_TOOL, disable, state.tools, state.tool_cap)
        self._actors = _Level(_ACTORS, Scope.ACTOR, read_only, state.actors, state.actor_cap)
        # Whether a statistic goes on after it has fired, because its rule can climb.
        self._listening = any(rung.after_us is None for level in (disable, read_only) for rung in level.ladder[1:])

    @property
    def traces_evicted(self) -> int:
        """Traces whose cap was re-armed because the table was full."""
        return self._state.tool_cap.evicted + self._state.actor_cap.evicted

    def take_outputs(self) -> list[Output]:
        """What has been decided since the last call, in order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def fold(self, piece: Piece, on_time: Bools) -> None:
        """Fold one piece: of each call the probe first, then the tools' statistics, then the actors'.

        The statistics take many calls at once, but nothing that is decided may overtake what comes before it: a piece
        is cut before each probe, and after each failure where that decides how the next one counts.
        """
        outcome = piece.calls.outcome
        counted = on_time & (outcome <= TIMEOUT)
        probes = counted & piece.calls.probe
        self._counters.probes += int(np.count_nonzero(probes))
        counted &= ~probes
        failed = places(counted & (outcome != OK))
        names = piece.calls.strings("trace_id", failed) if len(failed) else []
        self._traces = {
            at: trace_digest(name) if name else None for at, name in zip(failed.tolist(), names, strict=True)
        }
        # One failure at a time: what it evicts, or the rung that it brings into force, decides about the next.
        alone = self._listening or self._may_evict(len(failed))
        cuts = {0, len(piece), *places(probes).tolist(), *((failed + 1).tolist() if alone else ())}
        for a, b in pairwise(sorted(cuts)):
            if probes[a]:
                self._probe(piece, a)
            some = counted
            if b - a < len(piece):
                some = np.zeros(len(piece), dtype=np.bool_)
                some[a:b] = counted[a:b]
            self._fold_statistics(piece, some)
            # One call may trip its tool and its actor, in this order; calls are in the order of the log.
            for _, _, publish in sorted(self._pending, key=lambda p: (p[0], p[1])):
                publish()
            self._pending.clear()

    def _may_evict(self, failures: int) -> bool:
        return self._tools.cap.nearly_full(failures) or self._actors.cap.nearly_full(failures)

    # --- the two statistics

    def _fold_statistics(self, piece: Piece, counted: Bools) -> None:
        at = self._usable(self._tools, piece, piece.tool, counted)
        if len(at) == 0:
            return
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
        self._fold_actors(piece, at if included is None else at[included], taken)

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
        order = np.argsort(joined, kind="stable")
        kinds = np.concatenate((kind, np.full(len(where), TAKE_OUT, dtype=np.uint8)))
        return joined[order], kinds[order], np.concatenate((tool, numbers))[order]

    def _usable(self, level: _Level, piece: Piece, rows: NDArray[np.int64], counted: Bools) -> Index:
        """The calls that enter a statistic: its breaker is closed, and was when they began."""
        closed = (level.table["frozen"][rows] == 0) & (piece.start > level.table["closed_at"][rows])
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
            self._counters.trips += 1
            level.table.touch("stat", np.array([finding.row]))
            level.table["frozen"][finding.row] = 1
        else:
            self._counters.warnings += 1
        self._pending.append((at, level.order, lambda: self._announce(level, target, moment, evidence, finding)))

    def _announce(self, level: _Level, target: Target, moment: Moment, evidence: Evidence, finding: Finding) -> None:
        tenant, actor = target.tenant, target.actor or ""
        identity = breaker_id(target.scope, tenant, actor, target.tool)
        grade = SignalLevel.TRIP if finding.tripped else SignalLevel.WARN
        digest = blake2b(f"{identity} {grade} {moment.offset}".encode(), digest_size=16).hexdigest()
        signal = Signal(
            signal_id=digest,
            ts=moment.time_us,
            source=f"fuseboard/{self._settings.rule}",
            tenant=tenant,
            scope=target.scope,
            actor=actor,
            tool=target.tool,
            rule=self._settings.rule,
            level=grade,
            metric="calls.failed",
            value=finding.failures / finding.calls,
            evidence_log10=evidence.log10,
            null_p0=evidence.null_p0,
            calls=evidence.calls,
            failures=evidence.failures,
            since=evidence.since_us,
            event_id=moment.event_id,
            reason=describe_evidence(target.tool or actor, evidence, moment.time_us),
            rules_version=self._settings.rules_version,
        )
        self._outputs.append(Output("signals", actor_key(tenant, actor).encode(), signal))
        if finding.tripped:
            fired = self._breakers.fire(target, moment, level.response, evidence)
            self.publish_breakers(fired.changed)
            # Whatever came of it: the statistic has begun anew, and goes on if its rule can still climb.
            self._follow(level, finding.row, self._breakers.get(identity))

    def publish_breakers(self, changed: Sequence[Breaker]) -> None:
        """Publish transitions, a tombstone for a breaker that is forgotten, and let statistics rest or go on."""
        for breaker in changed:
            self._thaw(breaker)
            command = to_command(breaker, self._settings.breaker)
            self._outputs.append(Output("breaker_commands", breaker.breaker_id.encode(), command))

    def _thaw(self, breaker: Breaker) -> None:
        """Let the statistic of a breaker's target go on, or rest, as the hold of its rule says."""
        tenant, actor = breaker.tenant, breaker.actor
        if breaker.scope is Scope.ACTOR_TOOL and actor is not None and breaker.tool is not None:
            level, row = self._tools, self._identities.find_tool(tenant, actor, breaker.tool)
        elif breaker.scope is Scope.ACTOR and actor is not None:
            level, row = self._actors, self._identities.find_actor(tenant, actor)
        else:
            return
        if row is not None:
            self._follow(level, row, breaker)

    def _follow(self, level: _Level, row: int, breaker: Breaker | None) -> None:
        """A row is frozen while firing again would change nothing: the statistic of a tool that is off learns nothing.

        When its rule's hold is gone, or can climb, it goes on with the calls that begin from then on.
        """
        held = None if breaker is None else breaker.hold_of(level.response.rule)
        frozen = held is not None and not held.listens
        if breaker is None or bool(level.table["frozen"][row]) == frozen:
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
        return Moment(int(piece.stream[at]), event_id, int(piece.calls.offset[at]))

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
                ok = int(piece.calls.outcome[at]) not in (ERROR, TIMEOUT)
                changed = self._breakers.probe(identity, int(epoch), ok, self._moment(piece, at))
                self.publish_breakers(changed)


def _until_trips(entries: Entries, findings: Sequence[Finding]) -> Bools:
    """The entries that a statistic took: all but those of a key after it tripped."""
    taken = np.ones(len(entries.row), dtype=np.bool_)
    for finding in findings:
        if finding.tripped:
            taken[finding.entry + 1 :] &= entries.row[finding.entry + 1 :] != finding.row
    return taken
