"""The tools that rules of scope TOOL follow or objectives measure, each pooled over all actors of its tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fuseboard_schemas.keys import partition_for, tool_key
from fuseboard_streams.core.rulebook import NONE
from fuseboard_streams.core.runs import places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_streams.core.rulebook import FailureLevel
    from fuseboard_streams.core.tables import Table

I64: TypeAlias = NDArray[np.int64]
I32: TypeAlias = NDArray[np.int32]

_UNKNOWN = -1
"""Stands for a row of the tools table whose tool has not been looked up yet."""


class Pools:
    """Numbers for tools of tenants, and the number of each row of the tools table. All derived, nothing is kept.

    A tool has the same number whatever the rules, for as long as a row is its; whether it is followed depends on them.
    Objectives are for all tools. Only rows make numbers: names that are looked up are what agents and others write.

    Args:
        level: The rule of scope TOOL about failures.
        measured: Whether there are objectives of scope TOOL.
        tools: The tools table.
        actors: The actors table.
        partitions: Of every topic.
    """

    def __init__(self, level: FailureLevel, measured: bool, tools: Table, actors: Table, partitions: int) -> None:
        self.level = level
        self.measured = measured
        self.names: list[tuple[str, str]] = []
        """(tenant, tool) of each number; of one that is free, empty."""
        self.homes: list[int] = []
        """The partition in which each one's owner lives."""
        self._numbers: dict[tuple[str, str], int] = {}
        self._free: list[int] = []
        self._tools, self._actors = tools, actors
        self._partitions = partitions
        self._of = np.empty(0, dtype=np.int32)
        self._followed = np.empty(0, dtype=np.bool_)
        self._all = True
        self._known = self.wanted

    @property
    def followed(self) -> bool:
        """Whether the rule about failures is in force."""
        return self.level.view is not None

    @property
    def wanted(self) -> bool:
        """Whether any rule or objective asks."""
        return self.measured or self.followed

    def adopt(self, measured: bool, tool_names: Sequence[str]) -> None:
        """Follow other rules from now on.

        Args:
            measured: Whether they have objectives of scope TOOL.
            tool_names: By the numbers that the tools table has.
        """
        self.measured = measured
        for name, number in self._numbers.items():
            self._followed[number] = self._asked(*name)
        self._note_all()
        if self.wanted and not self._known:
            self.rebuild(tool_names)
        self._known = self.wanted

    def _asked(self, tenant: str, tool: str) -> bool:
        return self.followed and self.level.number(tenant, "", tool) != NONE

    def _note_all(self) -> None:
        self._all = all(self._followed[number] for number in self._numbers.values())

    def told(self, tenant: str, tool: str) -> int:
        """The number of a tool of which its owner is told: it is followed or measured; `NONE` for any other."""
        return self._numbers.get((tenant, tool), NONE) if self.measured else self.number(tenant, tool)

    def hears(self, tenant: str, tool: str) -> bool:
        """Whether anything is made of what others tell of a tool."""
        return self.measured or self.follows(tenant, tool)

    def follows(self, tenant: str, tool: str) -> bool:
        """Whether a rule is for a tool, be it in the tools table or not."""
        found = self._numbers.get((tenant, tool))
        return self._asked(tenant, tool) if found is None else bool(self._followed[found])

    def number(self, tenant: str, tool: str) -> int:
        """The number of a tool, `NONE` if no rule is for it, or no row is its."""
        found = self._numbers.get((tenant, tool), NONE)
        return found if found != NONE and self._followed[found] else NONE

    def _made(self, tenant: str, tool: str) -> int:
        """The number of a tool, followed or not, made if it has none."""
        name = tenant, tool
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = self._room()
            self.names[found], self.homes[found] = name, partition_for(tool_key(*name), self._partitions)
            self._followed[found] = self._asked(*name)
            self._all &= bool(self._followed[found])
        return found

    def _room(self) -> int:
        if self._free:
            return self._free.pop()
        size = len(self.names)
        if size == len(self._followed):
            self._followed = np.concatenate((self._followed, np.zeros(max(size, 16), dtype=np.bool_)))
        self.names.append(("", ""))
        self.homes.append(NONE)
        return size

    def _drop_others(self, kept: set[tuple[str, str]]) -> None:
        """Free the numbers of all other tools; those of these stay as they are."""
        for name in [name for name in self._numbers if name not in kept]:
            number = self._numbers.pop(name)
            self.names[number], self.homes[number] = ("", ""), NONE
            self._free.append(number)
        self._note_all()

    def assign(self, rows: I32, names: Sequence[tuple[str, str, str]]) -> None:
        """Note the tools of new rows, given as ``(tenant, actor, tool)``."""
        if self.wanted:
            self._grow()
            self._of[rows] = [self._made(tenant, tool) for tenant, _, tool in names]

    def rebuild(self, tool_names: Sequence[str]) -> None:
        """Look every row up anew, after a restore or a rollback. Tools of which no row is left lose their numbers.

        Args:
            tool_names: By the numbers that the table has.
        """
        self._known = self.wanted
        rows = places(self._tools.live)
        if not self.wanted or len(rows) == 0:
            self._drop_others(set())
            return
        self._grow()
        owners, tools = self._tools["actor"][rows].astype(np.int64), self._tools["tool"][rows]
        tenants = pl.Series(self._actors["tenant"][owners].tolist(), dtype=pl.String)
        pairs = pl.DataFrame({"tenant": tenants, "tool": pl.Series(tools)})
        # One look for each pair: there may be millions of rows.
        unique = pairs.unique(maintain_order=True)
        names = [(tenant, tool_names[tool]) for tenant, tool in unique.rows()]
        self._drop_others(set(names))
        found = [self._made(*name) for name in names]
        numbered = unique.with_columns(pl.Series("number", found, dtype=pl.Int32))
        self._of[rows] = pairs.join(numbered, on=["tenant", "tool"], how="left", maintain_order="left")[
            "number"
        ].to_numpy()

    def of(self, rows: I64) -> I32:
        """The numbers of some rows of the tools table, `NONE` for those that are not followed, shape (n,)."""
        found: I32 = self._of[rows]
        return found if self._all else np.where(self._followed[found], found, np.int32(NONE))

    def told_of(self, rows: I64) -> I32:
        """Likewise of those of which their owners are told."""
        found: I32 = self._of[rows] if self.measured else self.of(rows)
        return found

    def rows(self, tenant: str, tool: str) -> I64:
        """The rows of the tools table that are one tool's, ascending."""
        number = self._numbers.get((tenant, tool))
        if number is None:
            return np.empty(0, dtype=np.int64)
        top = min(len(self._of), self._tools.high_water)
        return places((self._of[:top] == number) & self._tools.live[:top]).astype(np.int64)

    def _grow(self) -> None:
        if len(self._of) < self._tools.capacity:
            more = np.full(self._tools.capacity - len(self._of), _UNKNOWN, dtype=np.int32)
            self._of = np.concatenate((self._of, more))
