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

    A tool has the same number whatever the rules; whether it is followed depends on them. Objectives are for all tools.

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
        """(tenant, tool) of each number."""
        self.homes: list[int] = []
        """The partition in which each one's owner lives."""
        self._numbers: dict[tuple[str, str], int] = {}
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
        self._followed = np.array([self._asked(*name) for name in self.names], dtype=np.bool_)
        self._all = bool(self._followed.all())
        if self.wanted and not self._known:
            self.rebuild(tool_names)
        self._known = self.wanted

    def _asked(self, tenant: str, tool: str) -> bool:
        return self.followed and self.level.number(tenant, "", tool) != NONE

    def number(self, tenant: str, tool: str) -> int:
        """The number of a tool that is followed, `NONE` for any other."""
        found = self._any(tenant, tool)
        return found if self._followed[found] else NONE

    def told(self, tenant: str, tool: str) -> int:
        """The number of a tool of which its owner is told: it is followed or measured; `NONE` for any other."""
        return self._any(tenant, tool) if self.measured else self.number(tenant, tool)

    def _any(self, tenant: str, tool: str) -> int:
        found = self._numbers.get((tenant, tool))
        if found is None:
            found = self._numbers[tenant, tool] = len(self.names)
            self.names.append((tenant, tool))
            self.homes.append(partition_for(tool_key(tenant, tool), self._partitions))
            followed = self._asked(tenant, tool)
            self._followed = np.append(self._followed, followed)
            self._all &= followed
        return found

    def assign(self, rows: I32, names: Sequence[tuple[str, str, str]]) -> None:
        """Note the tools of new rows, given as ``(tenant, actor, tool)``."""
        if self.wanted:
            self._grow()
            self._of[rows] = [self._any(tenant, tool) for tenant, _, tool in names]

    def rebuild(self, tool_names: Sequence[str]) -> None:
        """Look every row up anew, after a restore.

        Args:
            tool_names: By the numbers that the table has.
        """
        self._known = self.wanted
        rows = places(self._tools.live)
        if not self.wanted or len(rows) == 0:
            return
        self._grow()
        owners, tools = self._tools["actor"][rows].astype(np.int64), self._tools["tool"][rows]
        tenants = pl.Series(self._actors["tenant"][owners].tolist(), dtype=pl.String)
        pairs = pl.DataFrame({"tenant": tenants, "tool": pl.Series(tools)})
        # One look for each pair: there may be millions of rows.
        unique = pairs.unique(maintain_order=True)
        found = [self._any(tenant, tool_names[tool]) for tenant, tool in unique.rows()]
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
        number = self._any(tenant, tool)
        top = min(len(self._of), self._tools.high_water)
        return places((self._of[:top] == number) & self._tools.live[:top]).astype(np.int64)

    def _grow(self) -> None:
        if len(self._of) < self._tools.capacity:
            more = np.full(self._tools.capacity - len(self._of), _UNKNOWN, dtype=np.int32)
            self._of = np.concatenate((self._of, more))
