"""What rules that only watch (``SHADOW``, ``WARN``) would hold: one small record per breaker and rule.

Such a hold never enters a breaker and publishes no command. It is open for as long as a real one would be, roughly: for
one cooldown (probes), until it has been quiet (clear), until its window is over, and, where a person would decide, for
the longest cooldown. While it is open its rule does not trip again.
"""

from __future__ import annotations

import heapq
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from fuseboard_schemas.records import Recovery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fuseboard_streams.core.ruleset import Response

__all__ = ["VirtualHold", "VirtualHolds"]

Key: TypeAlias = tuple[str, str]
"""Breaker id and rule."""


@dataclass(frozen=True, slots=True)
class VirtualHold:
    """A hold that is only imagined. Times are microseconds of stream time."""

    since: int
    """When its rule fired."""
    until: int
    """Open before this time."""
    quiet_us: int | None
    """For ``CLEAR``: how long the condition must be gone; None: only the time decides."""
    on: bool = False
    """Whether the condition is known to be on: then it is open, whatever the time."""

    def is_open(self, now: int) -> bool:
        """Whether it would still hold."""
        return self.on or now < self.until


def _data(row: VirtualHold) -> bytes:
    # A rule that watches may fire at every tick: `asdict` takes ten times as long.
    found = {"since": row.since, "until": row.until, "quiet_us": row.quiet_us, "on": row.on}
    return json.dumps(found, separators=(",", ":")).encode()


class VirtualHolds:
    """All virtual holds of a shard, with undo. One that is over is as good as removed, whether it is or not."""

    def __init__(self) -> None:
        self._rows: dict[Key, VirtualHold] = {}
        self._undo: dict[Key, VirtualHold | None] | None = None
        self._ends: list[tuple[int, Key]] = []
        self._queued: set[Key] = set()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._rows)

    def open_keys(self) -> tuple[Key, ...]:
        """Breaker id and rule of all that are remembered, in order."""
        return tuple(sorted(self._rows))

    def get(self, breaker_id: str, rule: str) -> VirtualHold | None:
        """The virtual hold of a rule on a breaker, be it over."""
        return self._rows.get((breaker_id, rule))

    def fire(self, breaker_id: str, response: Response, now: int, until_us: int | None) -> bool:
        """A rule that only watches has fired; returns whether that is a trip: not while it is open already."""
        key = breaker_id, response.rule
        before = self._rows.get(key)
        plan = response.recovery
        if before is not None and before.is_open(now):
            if before.quiet_us is not None and not before.on:
                self._write(key, replace(before, until=now + before.quiet_us))
            return False
        match plan.by:
            case Recovery.CLEAR:
                until = now + plan.quiet_us
            case Recovery.WINDOW if until_us is not None:
                until = until_us
            case Recovery.PERSON:
                until = now + plan.max_cooldown_us
            case _:
                until = now + plan.cooldown_us
        self._write(key, VirtualHold(now, until, plan.quiet_us if plan.by is Recovery.CLEAR else None))
        return True

    def settled(self, breaker_id: str, rule: str, now: int) -> bool:
        """Whether it would change nothing if a rule fired again, at this time or before."""
        row = self._rows.get((breaker_id, rule))
        return row is not None and row.is_open(now) and (row.quiet_us is None or row.on)

    def burning(self, breaker_id: str, rule: str, now: int) -> None:
        """The condition of an open one is on."""
        before = self._rows.get((breaker_id, rule))
        if before is not None and before.quiet_us is not None and not before.on and before.is_open(now):
            self._write((breaker_id, rule), replace(before, on=True))

    def cleared(self, breaker_id: str, rule: str, now: int) -> None:
        """The condition is gone."""
        before = self._rows.get((breaker_id, rule))
        if before is not None and before.quiet_us is not None and before.on:
            self._write((breaker_id, rule), replace(before, on=False, until=now + before.quiet_us))

    def drop(self, gone: Callable[[str, str], bool]) -> None:
        """Forget those of rules that are removed, or enforced from now on, given the breaker's id and the rule."""
        for key in [key for key in self._rows if gone(*key)]:
            self._write(key, None)

    def drop_over(self, now: int) -> None:
        """Remove those that are over, to save memory."""
        while self._ends and self._ends[0][0] <= now:
            _, key = heapq.heappop(self._ends)
            self._queued.discard(key)
            row = self._rows.get(key)
            if row is not None and not row.is_open(now):
                self._write(key, None)
            elif row is not None:
                self._queue(key, row)

    # --- undo and state

    def begin(self) -> None:
        """Open a transaction."""
        self._undo = {}

    def commit(self) -> None:
        """Keep the changes made since :meth:`begin`."""
        self._undo = None

    def rollback(self) -> None:
        """Take them back."""
        undo, self._undo = self._undo or {}, None
        for key, before in undo.items():
            self._write(key, before)

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """What was written since :meth:`begin`, as :meth:`restore` takes it, in order; None: removed."""
        for key in sorted(self._undo or ()):
            row = self._rows.get(key)
            data = None if row is None else _data(row)
            yield json.dumps(key, separators=(",", ":")), data

    def restore(self, name: str, data: bytes) -> None:
        """Set one as it was written to the state log."""
        breaker_id, rule = json.loads(name)
        self._write((breaker_id, rule), VirtualHold(**json.loads(data)))

    def _write(self, key: Key, row: VirtualHold | None) -> None:
        if self._undo is not None:
            self._undo.setdefault(key, self._rows.get(key))
        if row is None:
            self._rows.pop(key, None)
            return
        self._rows[key] = row
        self._queue(key, row)

    def _queue(self, key: Key, row: VirtualHold) -> None:
        # One entry for each: a rule may fire at every call. It is looked at again when it comes up.
        if not row.on and key not in self._queued:
            self._queued.add(key)
            heapq.heappush(self._ends, (row.until, key))
