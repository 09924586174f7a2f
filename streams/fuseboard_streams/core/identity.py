"""Finding the rows of a batch's actors, tools and clients, and making those of new ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fuseboard_detectors.segments import different
from fuseboard_schemas.keys import actor_key, home_key, home_partition, partition_for
from fuseboard_schemas.records import DeadLetterReason
from fuseboard_schemas.rules import check_identity, check_signal
from fuseboard_streams.core.index import first_occurrences
from fuseboard_streams.core.inputs import TOOL_CALLS
from fuseboard_streams.core.prepare import ToolCalls, extend_with_tool, hash_actors
from fuseboard_streams.core.runs import places

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fuseboard_schemas.records import Scope, Signal
    from fuseboard_streams.core.events import ActorEvents
    from fuseboard_streams.core.rulebook import FailureLevel, Rulebook
    from fuseboard_streams.core.settings import CoreSettings, HashSeeds
    from fuseboard_streams.core.tables import Table

    Problem: TypeAlias = tuple[DeadLetterReason, str]
    NewTools: TypeAlias = Callable[[NDArray[np.int32], Sequence[tuple[str, str, str]]], None]
    """Is given the rows of new tools with their tenants, actors and names."""

Rows: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]

REJECTED = -2
"""Stands in for the row of a call that the field rules reject."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that decodes but that a field rule refuses: to be dead-lettered."""

    offset: int
    reason: DeadLetterReason
    detail: str
    topic: str = TOOL_CALLS
    """Without the prefix."""


class Identities:
    """The keys of one shard: actors, tools by name, and the rows of the tables that belong to them."""

    def __init__(
        self,
        number: int,
        partitions: int,
        settings: CoreSettings,
        seeds: HashSeeds,
        actors: Table,
        tools: Table,
        book: Rulebook,
        new_tools: NewTools,
    ) -> None:
        self._number = number
        self._partitions = partitions
        self._settings = settings
        self._seeds = seeds
        self._actors = actors
        self._tools = tools
        self._book = book
        self._new_tools = new_tools
        self.tool_names: list[str] = []
        self._tool_ids: dict[str, int] = {}

    # The tools' names only ever grow; a rolled-back one is named again.

    def tool_id(self, name: str) -> int:
        """The number of a tool's name in this shard."""
        number = self._tool_ids.get(name)
        if number is None:
            number = self._tool_ids[name] = len(self.tool_names)
            self.tool_names.append(name)
        return number

    def restore_tool(self, number: int, name: str) -> None:
        """Put back a tool's name as it was numbered."""
        self.tool_names.extend([""] * (number + 1 - len(self.tool_names)))
        self.tool_names[number] = name
        self._tool_ids[name] = number

    def forget_tools(self, size: int) -> None:
        """Drop the names numbered ``size`` and above, as they were before a transaction."""
        for name in self.tool_names[size:]:
            self._tool_ids.pop(name, None)
        del self.tool_names[size:]

    def rehash(self) -> None:
        """Compute the tables' hash columns from the names, after a restore."""
        actors, tools = self._actors, self._tools
        rows = places(actors.live)
        if len(rows) == 0:
            return
        tenant = pl.Series(actors["tenant"][rows].tolist(), dtype=pl.String)
        name = pl.Series(actors["actor"][rows].tolist(), dtype=pl.String)
        actors["lo"][rows], actors["hi"][rows] = hash_actors(tenant, name, self._seeds)
        actors.restore_used("hash", rows)
        rows = places(tools.live)
        tools.restore_used("hash", rows)
        owner = tools["actor"][rows]
        names = pl.Series(self.tool_names, dtype=pl.String).gather(tools["tool"][rows])
        tools["lo"][rows], tools["hi"][rows] = extend_with_tool(
            actors["lo"][owner], actors["hi"][owner], names, self._seeds
        )

    def renew(self, tools: Rows, actors: Rows) -> tuple[Rows, Rows]:
        """Note the variants of rows that were last seen under other rules.

        Returns:
            The rows of tools and of actors whose state the rules in force cannot go on with.
        """
        return self._renewed(self._tools, self._book.tools, tools), self._renewed(
            self._actors, self._book.actors, actors
        )

    def _renewed(self, table: Table, level: FailureLevel, rows: Rows) -> Rows:
        old = different(rows[table["stamp"][rows] != self._book.stamp])
        if len(old) == 0:
            return old
        before = table["basis"][old].copy()
        table.touch("key", old)
        self._set_rules(table, level, old.astype(np.int32), [self._names(table, row) for row in old.tolist()])
        cold: Rows = old[table["basis"][old] != before]
        return cold

    def _names(self, table: Table, row: int) -> tuple[str, str, str]:
        owner = row if table is self._actors else int(table["actor"][row])
        tool = "" if table is self._actors else self.tool_names[int(table["tool"][row])]
        return str(self._actors["tenant"][owner]), str(self._actors["actor"][owner]), tool

    def find_actor(self, tenant: str, actor: str) -> int | None:
        """The row of an actor, or None."""
        lo, hi = hash_actors(pl.Series([tenant]), pl.Series([actor]), self._seeds)
        row = int(self._actors.find(lo, hi)[0])
        return row if row >= 0 else None

    def find_actors(self, names: list[tuple[str, str]]) -> Rows:
        """The rows of actors given as ``(tenant, actor)``, -1 where there is none."""
        tenants, actors = (pl.Series(list(each), dtype=pl.String) for each in zip(*names, strict=True))
        return self._actors.find(*hash_actors(tenants, actors, self._seeds)).astype(np.int64)

    def find_tool(self, tenant: str, actor: str, tool: str) -> int | None:
        """The row of an actor's tool, or None."""
        lo, hi = hash_actors(pl.Series([tenant]), pl.Series([actor]), self._seeds)
        row = int(self._tools.find(*extend_with_tool(lo, hi, pl.Series([tool]), self._seeds))[0])
        return row if row >= 0 else None

    def rows_of(self, calls: ToolCalls) -> tuple[Rows, list[Rejected]]:
        """The tools-table row of each call, `REJECTED` where a field rule refuses it, making new rows as needed."""
        rows = self._tools.find(calls.tool_lo, calls.tool_hi).astype(np.int64)
        rejected: list[Rejected] = []
        unknown = places(rows < 0)
        if len(unknown) == 0:
            return rows, rejected
        first, inverse = first_occurrences(calls.tool_lo[unknown], calls.tool_hi[unknown])
        rejected_by_key: dict[int, Problem] = {}
        made = self._make(calls, unknown[first], rejected_by_key)
        rows[unknown] = made[inverse]
        for key, (reason, detail) in rejected_by_key.items():
            hit = unknown[inverse == key]
            rejected.extend(Rejected(offset, reason, detail) for offset in calls.offset[hit].tolist())
        return rows, rejected

    def actor_rows_of(self, events: ActorEvents) -> tuple[Rows, list[Rejected]]:
        """The actors-table row of each event, `REJECTED` where a field rule refuses it, making new rows as needed."""
        rows = self._actors.find(events.actor_lo, events.actor_hi).astype(np.int64)
        rejected: list[Rejected] = []
        unknown = places(rows < 0)
        if len(unknown) == 0:
            return rows, rejected
        first, inverse = first_occurrences(events.actor_lo[unknown], events.actor_hi[unknown])
        heads = unknown[first]
        tenants, actors = events.strings("tenant", heads), events.strings("actor", heads)
        refused: dict[int, Problem] = {}
        good: list[int] = []
        for i, (tenant, actor) in enumerate(zip(tenants, actors, strict=True)):
            problem = _refused(tenant or "", actor or "", None) or self._misplaced(tenant or "", actor or "")
            if problem is not None:
                refused[i] = problem
            elif len(good) == self._actors.room:
                refused[i] = _LIMIT
            else:
                good.append(i)
        made = np.full(len(heads), REJECTED, dtype=np.int64)
        made[good] = self._add_actors(
            events.actor_lo[heads[good]],
            events.actor_hi[heads[good]],
            [(tenants[i] or "", actors[i] or "") for i in good],
        )
        rows[unknown] = made[inverse]
        for key, (reason, detail) in refused.items():
            hit = unknown[inverse == key]
            rejected.extend(Rejected(offset, reason, detail, events.topic) for offset in events.offset[hit].tolist())
        return rows, rejected

    def _make(self, calls: ToolCalls, heads: Rows, refused: dict[int, Problem]) -> Rows:
        """Rows for the keys first seen in these calls."""
        made = np.full(len(heads), REJECTED, dtype=np.int64)
        tenants, actors = calls.strings("tenant", heads), calls.strings("actor", heads)
        tools = calls.strings("tool", heads)
        owner = self._actors.find(calls.actor_lo[heads], calls.actor_hi[heads]).astype(np.int64)
        fresh: dict[tuple[int, int], list[int]] = {}
        good: list[int] = []
        # Murmur2 in Python takes microseconds: once for each actor is enough.
        misplaced = cache(self._misplaced)
        for i in range(len(heads)):
            tenant, actor = tenants[i] or "", actors[i] or ""
            problem = _refused(tenant, actor, tools[i] or "") or (None if owner[i] >= 0 else misplaced(tenant, actor))
            if problem is not None:
                refused[i] = problem
                continue
            good.append(i)
            if owner[i] < 0:
                key = int(calls.actor_lo[heads[i]]), int(calls.actor_hi[heads[i]])
                fresh.setdefault(key, []).append(i)
        self._make_actors(calls, heads, owner, fresh, tenants, actors)
        chosen = np.array([i for i in good if owner[i] >= 0], dtype=np.int64)
        for i in good:
            if owner[i] < 0:
                refused[i] = _LIMIT
        if len(chosen):
            made[chosen] = self._make_tools(calls, heads[chosen], owner[chosen], [tools[i] or "" for i in chosen])
            refused.update({int(i): _LIMIT for i in chosen[made[chosen] < 0].tolist()})
        return made

    def refuse_signal(self, signal: Signal) -> Problem | None:
        """Why a signal cannot be used, or None if it can: its fields, its time, and whether it belongs here."""
        wrong = check_signal(signal)
        if wrong is not None:
            return DeadLetterReason.INVALID_FIELD, wrong
        if signal.ts < self._settings.oldest_us:
            return DeadLetterReason.ANCIENT, too_old(signal.ts)
        return self._not_at_home(signal.scope, signal.tenant, signal.actor, signal.tool)

    def _not_at_home(self, scope: Scope, tenant: str, actor: str | None, tool: str | None) -> Problem | None:
        home = home_partition(scope, tenant, actor, tool, self._partitions)
        if home == self._number:
            return None
        return (
            DeadLetterReason.MISPLACED,
            f"records about {home_key(scope, tenant, actor, tool)} belong to partition {home} of {self._partitions}, "
            f"not {self._number}: write them to the home partition of their target",
        )

    def _misplaced(self, tenant: str, actor: str) -> Problem | None:
        home = partition_for(actor_key(tenant, actor), self._partitions)
        if home == self._number:
            return None
        return (
            DeadLetterReason.MISPLACED,
            f"records of {actor_key(tenant, actor)} belong to partition {home} of {self._partitions}, not "
            f"{self._number}: produce them with their key and the murmur2 partitioner",
        )

    def _make_actors(
        self,
        calls: ToolCalls,
        heads: Rows,
        owner: Rows,
        fresh: dict[tuple[int, int], list[int]],
        tenants: list[str | None],
        actors: list[str | None],
    ) -> None:
        # As many as there is room for, in the order of the log: a batch is not refused whole for its last key.
        groups = list(fresh.values())[: self._actors.room]
        if not groups:
            return
        first = [members[0] for members in groups]
        rows = self._add_actors(
            calls.actor_lo[heads[first]],
            calls.actor_hi[heads[first]],
            [(tenants[i] or "", actors[i] or "") for i in first],
        )
        for row, members in zip(rows.tolist(), groups, strict=True):
            for i in members:
                owner[i] = row

    def _add_actors(self, lo: U64, hi: U64, names: list[tuple[str, str]]) -> NDArray[np.int32]:
        """Rows for new actors, given as ``(tenant, actor)``; there is room for them."""
        rows = self._actors.add(lo, hi)
        self._actors.touch("key", rows)
        self._actors["tenant"][rows] = np.array([tenant for tenant, _ in names], dtype=object)
        self._actors["actor"][rows] = np.array([actor for _, actor in names], dtype=object)
        self._set_rules(self._actors, self._book.actors, rows, [(tenant, actor, "") for tenant, actor in names])
        return rows

    def _make_tools(self, calls: ToolCalls, heads: Rows, owner: Rows, names: list[str]) -> Rows:
        made = np.full(len(heads), REJECTED, dtype=np.int64)
        fitting, numbers = self._fitting(names)
        heads, owner, names = heads[fitting], owner[fitting], [names[i] for i in fitting]
        if len(heads) == 0:
            return made
        rows = self._tools.add(calls.tool_lo[heads], calls.tool_hi[heads])
        self._tools.touch("key", rows)
        self._tools["actor"][rows] = owner
        self._tools["tool"][rows] = numbers
        tenants, actors = self._actors["tenant"][owner].tolist(), self._actors["actor"][owner].tolist()
        whole = list(zip(tenants, actors, names, strict=True))
        self._set_rules(self._tools, self._book.tools, rows, whole)
        self._new_tools(rows, whole)
        self._actors.touch("refs", owner)
        np.add.at(self._actors["refs"], owner, 1)
        made[fitting] = rows
        return made

    def _fitting(self, names: list[str]) -> tuple[list[int], list[int]]:
        """Which of these names get a row, in their order, and the names' numbers."""
        fitting: list[int] = []
        numbers: list[int] = []
        for i, name in enumerate(names):
            if len(fitting) == self._tools.room:
                break
            if name in self._tool_ids or len(self.tool_names) < self._settings.max_tool_names:
                fitting.append(i)
                numbers.append(self.tool_id(name))
        return fitting, numbers

    def _set_rules(
        self, table: Table, level: FailureLevel, rows: NDArray[np.int32], names: list[tuple[str, str, str]]
    ) -> None:
        """Note which variant of the rule about failures each row has; the family of keys has been touched."""
        table["stamp"][rows] = self._book.stamp
        if level.general:
            table["basis"][rows] = level.basis(0)
            return
        numbers = [level.number(*each) for each in names]
        table["rule"][rows] = numbers
        table["basis"][rows] = [level.basis(number) for number in numbers]


def too_old(ts: int) -> str:
    """Why a time is refused."""
    return f"ts {ts} microseconds is before 2000-01-01T00:00:00Z"


def _refused(tenant: str, actor: str, tool: str | None) -> Problem | None:
    detail = check_identity(tenant, actor, tool)
    return None if detail is None else (DeadLetterReason.INVALID_FIELD, detail)


_LIMIT = (
    DeadLetterReason.KEY_LIMIT,
    "this shard already holds as many keys as it may: raise the limit, or find out who makes up so many names",
)
