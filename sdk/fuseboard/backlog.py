"""Which spool an event is in: this process's own, or a leftover of one that died."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fuseboard.entry import Entry
from fuseboard.spool import SUPPORTED, Position, Spool, leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger("fuseboard.spool")

_SCAN_EVERY_S = 30.0


class Backlog:
    """The disk side of the publisher, used from its thread only.

    Args:
        root: Directory shared by the spools of all processes; None keeps everything in memory.
        name: Name of this process's spool below it.
        limit_bytes: Size limit of ``root``.
        segment_bytes: Size of one spool file.
        sync: Sync each batch to the disk.
    """

    def __init__(self, root: Path | None, name: str, *, limit_bytes: int, segment_bytes: int, sync: bool) -> None:
        if root is not None and not SUPPORTED:
            log.warning("This system has no file locks: events are kept in memory only while Kafka is away.")
        self._root = root if SUPPORTED else None
        self._name = name
        self._limit = limit_bytes
        self._segment_bytes = segment_bytes
        self._sync = sync
        self._own: Spool | None = None
        self._leftover: Spool | None = None
        self._scan_at = float("-inf")
        self._settled: dict[Spool, Position] = {}
        self._complained = False

    @property
    def active(self) -> bool:
        """Whether own events are in the spool, so that later ones must go behind them."""
        return self._own is not None and not self._own.empty

    def open(self, messages_bytes: int) -> bool:
        """Make sure that there is a spool with room for this many bytes."""
        if self._root is None:
            return False
        if self._own is None:
            try:
                self._own = Spool.create(
                    self._root,
                    self._name,
                    limit_bytes=self._limit,
                    segment_bytes=self._segment_bytes,
                    sync=self._sync,
                )
            except OSError as error:
                if not self._complained:
                    log.error(
                        "The spool directory %s cannot be used: %s. Events are kept in memory only; set "
                        "FUSEBOARD_SPOOL_DIR to a directory that this process may write.",
                        self._root,
                        error,
                    )
                    self._complained = True
                return False
        return self._own.has_room(messages_bytes)

    def append(self, entry: Entry) -> bool:
        """Write one message behind all others; False when the limit is reached or the disk refuses."""
        if self._own is None:
            return False
        position = self._own.append(entry.message)
        if position is None:
            return False
        entry.position, entry.spool = position, self._own
        return True

    def skip_appended(self) -> None:
        """What was appended so far is on its way already: do not read it back."""
        if self._own is not None:
            self._own.skip(self._own.end)

    def sync(self) -> None:
        """End a batch of appends."""
        if self._own is not None:
            self._own.sync()

    def read(self) -> Entry | None:
        """The next own message that is not on its way yet."""
        found = None if self._own is None else self._own.read()
        return None if found is None else Entry(found.message, position=found.position, spool=self._own)

    def read_leftovers(self, now: float, most: int) -> Iterator[Entry]:
        """The next messages of dead processes."""
        if self._root is None:
            return
        if self._leftover is None and now >= self._scan_at:
            self._scan_at = now + _SCAN_EVERY_S
            self._adopt()
        for _ in range(most):
            found = None if self._leftover is None else self._leftover.read()
            if found is None:
                return
            yield Entry(found.message, position=found.position, spool=self._leftover, leftover=True)

    def _adopt(self) -> None:
        assert self._root is not None
        try:
            candidates = leftovers(self._root, None if self._own is None else self._own.path)
        except OSError as error:
            log.warning("The spool directory %s cannot be read: %s.", self._root, error)
            return
        for path in candidates:
            spool = Spool.adopt(path)
            if spool is None:
                continue
            if spool.empty:
                spool.close()
                continue
            log.info("Sending %d bytes of events left by an earlier process in %s.", spool.size_bytes, path)
            self._leftover = spool
            return

    def settle(self, entry: Entry) -> None:
        """Note, in window order, that an entry needs no more care."""
        if entry.spool is not None and entry.position is not None:
            self._settled[entry.spool] = entry.position

    def commit(self) -> None:
        """Make what was settled final: spool files that are done go away."""
        for spool, position in self._settled.items():
            spool.ack(position)
        self._settled.clear()
        self.finish_leftover()

    def finish_leftover(self) -> None:
        """Remove a leftover that has been sent completely, and look for the next at once."""
        if self._leftover is not None and self._leftover.empty:
            self._leftover.close()
            self._leftover = None
            self._scan_at = float("-inf")

    def close(self) -> None:
        """Release all spools; what is still in them is for a later process."""
        for spool in (self._own, self._leftover):
            if spool is not None:
                spool.close()
        self._own = self._leftover = None

    def abandon(self) -> None:
        """Close a forked child's copies of the parent's files."""
        for spool in (self._own, self._leftover):
            if spool is not None:
                spool.abandon()
        self._own = self._leftover = None
