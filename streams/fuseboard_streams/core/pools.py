"""The tools that rules of scope TOOL follow, each pooled over all actors of its tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
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

UNKNOWN = -2
"""Stands for a row of the tools table whose tool has not been looked up yet; ``NONE`` for one that is not followed."""


class Pools:
    """Numbers for tools of tenants, and the number of each row of the tools table. All derived, nothing is kept.

    Args:
        level: The rule of scope TOOL about failures.
        tools: The tools table.
        actors: The actors table.
        partitions: Of every topic.
    """

    def __init__(self, level: FailureLevel, tools: Table, actors: Table, partitions: int) -> None:
        self.level = level
        self.wanted = level.view is not None
        """Whether any rule asks."""
        self.names: list[tuple[str, str]] = []
        """(tenant, tool) of each number."""
        self.homes: list[int] = []
        """The partition in which each one's owner lives."""
        self._numbers: dict[tuple[str, str], int] = {}
        self._tools, self._actors = tools, actors
        self._partitions = partitions
        self._of = np.empty(0, dtype=np.int32)

    def number(self, tenant: str, tool: str) -> int:
        """The number of a tool, `NONE` if no rule is for it."""
        found = self._numbers.get((tenant, tool))
        if found is None:
            if not self.wanted or self.level.number(tenant, "", tool) == NONE:
                return NONE
            found = self._numbers[tenant, tool] = len(self.names)
            self.names.append((tenant, tool))
            self.homes.append(partition_for(tool_key(tenant, tool), self._partitions))
        return found

    def assign(self, rows: I32, names: Sequence[tuple[str, str, str]]) -> None:
        """Note the tools of new rows, given as ``(tenant, actor, tool)``."""
        if self.wanted:
            self._grow()
            self._of[rows] = [self.number(tenant, tool) for tenant, _, tool in names]

    def rebuild(self, tool_names: Sequence[str]) -> None:
        """Look every row up anew, after a restore.

        Args:
            tool_names: By the numbers that the table has.
        """
        rows = places(self._tools.live)
        tenants = self._actors["tenant"][self._tools["actor"][rows]].tolist()
        tools = [tool_names[number] for number in self._tools["tool"][rows].tolist()]
        self.assign(rows.astype(np.int32), [(tenant, "", tool) for tenant, tool in zip(tenants, tools, strict=True)])

    def of(self, rows: I64) -> I32:
        """The numbers of some rows of the tools table, shape (n,)."""
        found: I32 = self._of[rows]
        return found

    def rows(self, number: int) -> I64:
        """The rows of the tools table that are one tool's, ascending."""
        top = min(len(self._of), self._tools.high_water)
        return places((self._of[:top] == number) & self._tools.live[:top]).astype(np.int64)

    def _grow(self) -> None:
        if len(self._of) < self._tools.capacity:
            more = np.full(self._tools.capacity - len(self._of), UNKNOWN, dtype=np.int32)
            self._of = np.concatenate((self._of, more))
