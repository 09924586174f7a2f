"""A run of one shard's calls that no timer interrupts, with the rows they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_streams.core.layout import EPOCH_S
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.settings import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fuseboard_streams.core.prepare import ToolCalls

Rows: TypeAlias = NDArray[np.int64]
I64: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

OK, ERROR, TIMEOUT = 0, 1, 2
"""Codes of the outcomes that count; DENIED and CANCELLED come after them."""


@dataclass(slots=True)
class Piece:
    """n calls in order; every array has shape (n,)."""

    calls: ToolCalls
    ts: I64
    """The end of the call, set back where it lay in the future."""
    stream: I64
    """Stream time once the call has been seen."""
    tool: Rows
    actor: Rows
    client: Rows
    """-1 where the call carries no sequence number."""
    late: Bools
    """Whether the call lies too far behind the newest to decide anything."""

    def __len__(self) -> int:
        """The number of calls."""
        return len(self.ts)

    @property
    def start(self) -> I64:
        """When each call began."""
        return self.ts - np.maximum(self.calls.duration, 0)

    @property
    def seconds(self) -> NDArray[np.int32]:
        """Stream time in whole seconds since 2000, as the tables keep it."""
        return (self.stream // SECOND - EPOCH_S).astype(np.int32)

    def part(self, rows: slice | Bools) -> Piece:
        """Some of the calls."""
        return Piece(
            self.calls.take(rows),
            self.ts[rows],
            self.stream[rows],
            self.tool[rows],
            self.actor[rows],
            self.client[rows],
            self.late[rows],
        )


def between_probes(piece: Piece) -> Iterator[Piece]:
    """A piece cut around its probes: what a probe decides comes before whatever the calls behind it decide."""
    probes = places(piece.calls.probe)
    if len(probes) == 0:
        yield piece
        return
    for a, b in pairwise(sorted({0, *probes.tolist(), *(probes + 1).tolist(), len(piece)})):
        yield piece.part(slice(a, b))
