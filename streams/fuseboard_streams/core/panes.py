"""Sums of one second: what a shard tells the owner of a tool about its calls.

A pane is the second of the shard's own stream time, so that it is final once stream time has passed it. One is sent for
every second in which the tool was called, whether anything failed or not: a pane is one step of the owner's statistic.
An actor counts for at most so many failures of a pane. For whom it failed is told by hashes of their names, so that the
owner can count them since the onset that it has estimated.

Beside what counts for the tool's breaker a pane has all results of the second, for objectives: neither an actor's cap
nor an open breaker takes from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.breadth import ENOUGH
from fuseboard_detectors.segments import firsts, stable_order
from fuseboard_schemas.keys import KeyFormatError, parse_breaker_id
from fuseboard_schemas.records import DeniedBy, Effect, PaneKind, Scope
from fuseboard_streams.core.layout import EPOCH_S
from fuseboard_streams.core.piece import OK, TIMEOUT
from fuseboard_streams.core.prepare import hash_of
from fuseboard_streams.core.rulebook import NONE
from fuseboard_streams.core.runs import places, run_starts
from fuseboard_streams.core.settings import SECOND

if TYPE_CHECKING:
    from fuseboard_streams.core.mail import Mail
    from fuseboard_streams.core.piece import Piece
    from fuseboard_streams.core.pools import Pools
    from fuseboard_streams.core.tables import Table

I64: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

MOST_LISTED = 10_000
"""Failing actors of a pane; what is more goes into another one, or it would outgrow what a topic takes."""
BREADTH_S = 600
"""An actor counts among a tool's callers for so long."""
MINUTE_S = 60
_IRREVERSIBLE = tuple(Effect).index(Effect.IRREVERSIBLE)
_BY_BREAKER = tuple(DeniedBy).index(DeniedBy.BREAKER)


@dataclass(slots=True)
class OpenSum:
    """One tool in the second that is under way."""

    calls: int = 0
    """That count for its breaker."""
    results: int = 0
    """Calls that ended with OK, ERROR or TIMEOUT, whether they count or not."""
    results_bad: int = 0
    first: int = -1
    """Offset of the first of either."""
    next: int = 0
    newcomers: int = 0
    """Actors that had not called the tool within the breadth window."""
    failures: dict[str, int] = field(default_factory=dict)
    """By the row of the actor, in digits: JSON knows no other keys."""

    def saved(self) -> dict[str, Any]:
        """The fields by name. They are not copied, as `asdict` would: every transaction asks."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class OpenSecond:
    """Everything that has to be told when the second under way is over."""

    second: int
    """Since 1970."""
    tools: dict[int, OpenSum] = field(default_factory=dict)
    """By the number of the pool."""
    probes: list[dict[str, Any]] = field(default_factory=list)
    """Results of probe calls of tools' own breakers, in the order of the log."""


class Panes:
    """Sums up one shard's calls.

    Args:
        pools: The tools that are followed.
        tools: The table of tools of actors.
        actors: The table of actors, for their names.
        mail: Takes the panes.
    """

    def __init__(self, pools: Pools, tools: Table, actors: Table, mail: Mail) -> None:
        self._pools = pools
        self._tools, self._actors = tools, actors
        self._mail = mail
        self.open: OpenSecond | None = None
        self.minute = 0
        """The whole minute at which callers were counted last, in seconds since 1970."""
        self._counts: dict[int, int] = {}
        self._newcomers: dict[int, dict[int, int]] = {}

    # --- calls

    def arrive(self, piece: Piece) -> None:
        """Notice who calls a tool again after a while; ``last_seen`` is still as it was before the piece."""
        second = int(piece.stream[0]) // SECOND
        if second // MINUTE_S * MINUTE_S > self.minute:
            self.count_callers(second // MINUTE_S * MINUTE_S)
        pool = self._pools.of(piece.tool)
        absent = self._tools["last_seen"][piece.tool] < self.minute - BREADTH_S - EPOCH_S
        new = places(absent & (pool != NONE))
        if len(new) == 0:
            return
        at = new[firsts(piece.tool[new])[1]]
        seconds, pools = piece.stream[at] // SECOND, pool[at]
        # Told when their second is over; they are callers from then on.
        for where, number in zip(seconds.tolist(), pools.tolist(), strict=True):
            self._newcomers.setdefault(where, {}).setdefault(number, 0)
            self._newcomers[where][number] += 1

    def note(self, piece: Piece, counting: Bools) -> None:
        """Sum up a piece's calls, without duplicates.

        Args:
            piece: Within a whole minute.
            counting: Which calls may count, shape (n,): on time, and their tool's own breaker is closed.
        """
        calls = piece.calls
        pool = self._pools.told_of(piece.tool)
        ended = (calls.outcome <= TIMEOUT) & ~calls.probe & (pool != NONE)
        # As objectives of actors count them.
        results = ended & ~piece.late & (calls.denied_by != _BY_BREAKER)
        counted = ended & counting
        if self._pools.measured:
            counted &= self._pools.of(piece.tool) != NONE
        at = places(results | counted)
        seconds = piece.stream // SECOND
        found: dict[int, dict[int, OpenSum]] = {}
        if len(at):
            bad = calls.outcome != OK
            amounts = counted[at], results[at], (results & bad)[at]
            self._sum(found, seconds[at], pool[at].astype(np.int64), calls.offset[at], amounts)
            failed = places(counted & bad)
            for where, number, actor in zip(
                seconds[failed].tolist(), pool[failed].tolist(), piece.actor[failed].tolist(), strict=True
            ):
                failures = found[where][number].failures
                failures[str(actor)] = failures.get(str(actor), 0) + 1
        probes = self._probes(piece, seconds) if calls.probe.any() else {}
        for second in sorted({*found, *probes, *self._newcomers}):
            self._enter(second)
            self._merge(found.get(second, {}), self._newcomers.pop(second, {}), probes.get(second, []))

    @staticmethod
    def _sum(
        found: dict[int, dict[int, OpenSum]], seconds: I64, pool: I64, offset: I64, amounts: tuple[Bools, ...]
    ) -> None:
        """Add up n calls by second and tool: those that count, all results, and the bad ones; shape (n,) each."""
        group = (seconds - seconds[0]) * (int(pool.max()) + 1) + pool
        order = stable_order(group)
        seconds, pool, offset = seconds[order], pool[order], offset[order]
        starts = run_starts(group[order])
        ends = np.append(starts[1:], len(order))
        sums_of = (np.add.reduceat(each[order], starts, dtype=np.int64).tolist() for each in amounts)
        for begin, end, calls, results, bad in zip(starts.tolist(), ends.tolist(), *sums_of, strict=True):
            sums = OpenSum(calls, results, bad, int(offset[begin]), int(offset[end - 1]) + 1)
            found.setdefault(int(seconds[begin]), {})[int(pool[begin])] = sums

    def _probes(self, piece: Piece, seconds: I64) -> dict[int, list[dict[str, Any]]]:
        """The results of probes that a tool's own breaker admitted, by second."""
        calls = piece.calls
        at = places(calls.probe & (calls.outcome <= TIMEOUT) & ~piece.late & (calls.effect != _IRREVERSIBLE))
        found: dict[int, list[dict[str, Any]]] = {}
        texts = [calls.strings(name, at) for name in ("gate_breaker", "gate_epoch", "event_id")]
        for where, gate, epoch, event in zip(at.tolist(), *texts, strict=True):
            number = self._gate(gate)
            if number != NONE and number == self._pools.of(piece.tool[where : where + 1])[0] and epoch is not None:
                result = {"pool": self._pools.names[number], "epoch": int(epoch), "event": event}
                result |= {"ok": int(calls.outcome[where]) == OK, "offset": int(calls.offset[where])}
                found.setdefault(int(seconds[where]), []).append(result)
        return found

    def _gate(self, gate: str | None) -> int:
        try:
            target = parse_breaker_id(gate or "")
        except KeyFormatError:
            return NONE
        if target.scope is not Scope.TOOL or target.tool is None:
            return NONE
        return self._pools.number(target.tenant, target.tool)

    def _enter(self, second: int) -> None:
        if self.open is not None and self.open.second < second:
            self.close()
        if self.open is None:
            self.open = OpenSecond(second)

    def _merge(self, sums: dict[int, OpenSum], newcomers: dict[int, int], probes: list[dict[str, Any]]) -> None:
        assert self.open is not None, "a second has just been entered"
        tools = self.open.tools
        for number in {*sums, *newcomers}:
            total, more = tools.setdefault(number, OpenSum()), sums.get(number, OpenSum())
            total.calls += more.calls
            total.results += more.results
            total.results_bad += more.results_bad
            total.first = more.first if total.first < 0 else total.first
            total.next = max(total.next, more.next)
            total.newcomers += newcomers.get(number, 0)
            for actor, failures in more.failures.items():
                total.failures[actor] = total.failures.get(actor, 0) + failures
        self.open.probes += probes

    # --- time

    @property
    def due(self) -> int | None:
        """When the second under way is over, microseconds; None if none is."""
        return None if self.open is None else (self.open.second + 1) * SECOND

    def stop(self, begin_us: int) -> int:
        """Where a run of events that begins at a time must end, whatever they are, microseconds."""
        return (begin_us // (MINUTE_S * SECOND) + 1) * MINUTE_S * SECOND

    def close(self) -> None:
        """The second under way is over: tell the owners."""
        now, self.open = self.open, None
        if now is None:
            return
        for number in sorted(now.tools, key=lambda each: self._pools.names[each]):
            sums = now.tools[number]
            self._counts[number] = self._counts.get(number, 0) + sums.newcomers
            if sums.calls or sums.results:
                self._send(now.second, number, sums)
        for probe in now.probes:
            tenant, tool = probe["pool"]
            if self._pools.number(tenant, tool) == NONE:
                continue
            pane = self._mail.pane(PaneKind.PROBED, tenant, tool, now.second * SECOND)
            self._mail.send(
                self._pools.homes[self._pools.number(tenant, tool)],
                replace(
                    pane, calls=1, failures=0 if probe["ok"] else 1, breaker_epoch=probe["epoch"],
                    event_id=probe["event"], from_offset=probe["offset"], next_offset=probe["offset"] + 1,
                ),
            )  # fmt: skip

    def _send(self, second: int, number: int, sums: OpenSum) -> None:
        tenant, tool = self._pools.names[number]
        most = self._pools.level.breadth.max_per_actor
        failures = sum(min(each, most) for each in sums.failures.values())
        pane = self._mail.pane(PaneKind.SUMS, tenant, tool, second * SECOND)
        # Failures of an actor beyond the cap are no successes either.
        failed, failing = sum(sums.failures.values()), self._failing(sums)
        pane = replace(
            pane,
            from_offset=sums.first,
            next_offset=sums.next,
            calls=sums.calls - failed + failures,
            failures=failures,
            actors=self._counts.get(number, 0),
            actors_failing=failing[:MOST_LISTED],
            results=sums.results,
            results_bad=sums.results_bad,
        )
        self._mail.send(self._pools.homes[number], pane)
        for begin in range(MOST_LISTED, len(failing), MOST_LISTED):
            rest = failing[begin : begin + MOST_LISTED]
            more = replace(pane, calls=0, failures=0, results=0, results_bad=0, actors_failing=rest)
            self._mail.send(self._pools.homes[number], more)

    def _failing(self, sums: OpenSum) -> tuple[int, ...]:
        """The actors that it failed for: each once, and once more if it did so again."""
        names, found = self._actors["actor"], list[int]()
        for row, times in sums.failures.items():
            found += [_hash_of(str(names[int(row)]))] * min(times, ENOUGH)
        return tuple(sorted(found))

    # --- who calls

    def count_callers(self, minute: int) -> None:
        """Count the actors that called each tool within the breadth window before a whole minute."""
        self.minute = minute
        self._counts.clear()
        if not self._pools.followed:
            return
        top = self._tools.high_water
        rows = places(self._tools.live[:top] & (self._tools["last_seen"][:top] >= minute - BREADTH_S - EPOCH_S))
        if len(rows) == 0:
            return
        pool = np.sort(self._pools.of(rows))
        starts = run_starts(pool)
        sizes = np.diff(np.append(starts, len(pool)))
        found = zip(pool[starts].tolist(), sizes.tolist(), strict=True)
        self._counts = {number: size for number, size in found if number != NONE}

    # --- state

    def saved(self) -> dict[str, Any]:
        """Everything that cannot be found in the tables, as JSON holds it."""
        now = self.open
        if now is None:
            return {"minute": self.minute}
        tools = [[*self._pools.names[number], sums.saved()] for number, sums in sorted(now.tools.items())]
        return {"minute": self.minute, "second": now.second, "tools": tools, "probes": now.probes}

    def restore(self, saved: dict[str, Any]) -> None:
        """Put back what was saved; the tables are complete."""
        self.open = None
        self._newcomers.clear()
        self.count_callers(saved.get("minute", 0))
        if "second" in saved:
            named = {self._pools.told(tenant, tool): OpenSum(**sums) for tenant, tool, sums in saved["tools"]}
            named.pop(NONE, None)
            for number, sums in named.items():
                if self._pools.number(*self._pools.names[number]) == NONE:
                    # With other rules nothing of it counts any more, but what came of its calls is what it is.
                    sums.calls, sums.newcomers = 0, 0
                    sums.failures.clear()
            probes = [{**probe, "pool": tuple(probe["pool"])} for probe in saved["probes"]]
            self.open = OpenSecond(saved["second"], named, probes)
            for number, sums in named.items():
                # They are in the table already, and are told of when their second is over.
                self._counts[number] = self._counts.get(number, 0) - sums.newcomers


@lru_cache(maxsize=1 << 16)
def _hash_of(actor: str) -> int:
    """64 bits for an actor's name, as Avro's long has them."""
    return hash_of(actor) - (1 << 63)
