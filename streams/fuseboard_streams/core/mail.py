"""What a shard sends to owners of tools and tenants, and they to it: panes, numbered for each partition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fuseboard_schemas.keys import tenant_key, tool_key
from fuseboard_schemas.records import Pane, PaneKind
from fuseboard_streams.core.settings import SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_streams.core.rulebook import Rulebook

__all__ = ["Mail", "PaneOutput"]


@dataclass(frozen=True, slots=True)
class PaneOutput:
    """A pane to publish: the only output that may go to another partition than its shard's."""

    partition: int
    key: bytes
    record: Pane


class Mail:
    """Numbers what one shard sends, by destination, so that repeats and losses show.

    Args:
        shard: The sender.
        partitions: Of every topic.
        book: The rules in force.
    """

    def __init__(self, shard: int, partitions: int, book: Rulebook) -> None:
        self._shard = shard
        self._partitions = partitions
        self._book = book
        self.sequence = [0] * partitions
        """The last number used for each partition."""
        self._marked = [0] * partitions
        self._out: list[PaneOutput] = []

    def pane(self, kind: PaneKind, tenant: str, tool: str | None, ts: int) -> Pane:
        """A pane of this shard that says nothing yet."""
        return Pane(
            tenant=tenant, tool=tool, kind=kind, ts=ts, source_shard=self._shard, from_offset=0, next_offset=0,
            rules_version=self._book.version,
        )  # fmt: skip

    def send(self, partition: int, pane: Pane) -> None:
        """Number a pane and keep it until it is taken."""
        self.sequence[partition] += 1
        numbered = replace(pane, sequence=self.sequence[partition])
        self._out.append(PaneOutput(partition, _key(numbered), numbered))

    def slip_in(self, said: Sequence[tuple[int, int, Pane]]) -> None:
        """Send what was due when some seconds were over, behind the sums of these and before those of later ones.

        A run of calls may have told the sums of many seconds before it is known what it asks for. The order is that of
        time, as if each call came alone.

        Args:
            said: When each is due, microseconds, ascending; its partition; the pane.
        """
        at = len(self._out)
        while at and _over(self._out[at - 1].record) > said[0][0]:
            at -= 1
        later, self._out[at:] = self._out[at:], []
        for each in later:
            self.sequence[each.partition] -= 1
        queue = [(_over(each.record), each.partition, each.record) for each in later]
        for _, partition, pane in sorted([*queue, *said], key=lambda each: each[0]):
            self.send(partition, pane)

    def broadcast(self, pane: Pane) -> None:
        """Send a pane to every partition, this shard's own included: it comes back like everybody else's."""
        for partition in range(self._partitions):
            self.send(partition, pane)

    def mark(self, passed_s: int) -> None:
        """Say to every partition that whatever ended before a second has been sent.

        Only completeness is read from it, so that how often it is said may depend on batches.
        """
        for partition in range(self._partitions):
            if passed_s > self._marked[partition]:
                self._marked[partition] = passed_s
                marker = replace(
                    self.pane(PaneKind.MARKER, "", None, passed_s * SECOND), sequence=self.sequence[partition]
                )
                self._out.append(PaneOutput(partition, b"", marker))

    def take(self) -> list[PaneOutput]:
        """What has been sent since the last call, in order."""
        out, self._out = self._out, []
        return out

    def restore(self, sequence: Sequence[int]) -> None:
        """Go on behind these numbers; what has been marked is said again."""
        self.sequence = list(sequence) or [0] * self._partitions
        self._marked = [0] * self._partitions
        self._out = []


def _over(pane: Pane) -> int:
    """When the second was over that a tool's sums are about, or its probes; 0 for what is told at once."""
    of_tool = pane.kind is PaneKind.PROBED or (pane.kind is PaneKind.SUMS and pane.tool is not None)
    return (pane.ts // SECOND + 1) * SECOND if of_tool else 0


def _key(pane: Pane) -> bytes:
    return (tenant_key(pane.tenant) if pane.tool is None else tool_key(pane.tenant, pane.tool)).encode()
