"""An open-addressing index from 128-bit keys to row numbers, probed a whole batch at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fuseboard_streams.core.runs import places

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Rows = NDArray[np.int32]
    Positions = NDArray[np.intp]
    U64 = NDArray[np.uint64]

_EMPTY = -1
_REMOVED = -2
_MIN_BITS = 4
# Clients choose their own ids: with known multipliers one of them could put all its keys into one chain. Python's
# string hash is secret to the process, as for its own dictionaries; no result depends on it.
_FOLD, _SPREAD = (np.uint64(hash(name) & 0xFFFF_FFFF_FFFF_FFFF | 1) for name in ("fold", "spread"))
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio: multiplicative hashing, high bits kept


def _homes(lo: U64, hi: U64, bits: int) -> Positions:
    """The first slot of each key in a table of ``2**bits`` slots."""
    mixed = hi * _FOLD
    mixed ^= lo
    mixed *= _SPREAD
    mixed ^= mixed >> np.uint64(32)
    mixed *= _GOLDEN
    mixed >>= np.uint64(64 - bits)
    return mixed.view(np.intp)


def _bits_for(keys: int) -> int:
    """The smallest table (as a power of two) that is at most half full with ``keys`` keys."""
    return max(_MIN_BITS, (2 * keys - 1).bit_length() if keys else 0)


class KeyIndex:
    """Maps 128-bit keys, given as two ``uint64`` arrays, to ``int32`` rows.

    A slot holds only a row (4 bytes); the key is compared where it lives, in two arrays indexed by row. They belong to
    the index (16 bytes a row), or to its owner, who then passes ``keys``, a function returning the current arrays, and
    must have written them before ``insert`` and must not change them before ``remove``. Triangular probing, at most
    half full, so that the longest chain of a batch stays short: every step of the chain is a pass in numpy.
    """

    def __init__(self, capacity: int = 8, keys: Callable[[], tuple[U64, U64]] | None = None) -> None:
        self._bits = _bits_for(capacity)
        self._slots: Rows = np.full(1 << self._bits, _EMPTY, np.int32)
        self._occupied = 0  # slots that are not empty, removed ones included
        self._size = 0
        self._lo: U64 = np.zeros(2, np.uint64)
        self._hi: U64 = np.zeros(2, np.uint64)
        self._shared = keys is not None
        self._keys = keys if keys is not None else self._own_keys

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        """Bytes held by the index itself (its owner's key arrays excluded)."""
        return self._slots.nbytes + self._lo.nbytes + self._hi.nbytes

    def lookup(self, lo: U64, hi: U64) -> Rows:
        """The row of each key, ``int32[n]``, -1 for a key that is not there. Keys may repeat."""
        return self._probe(lo, hi)[0]

    def insert(self, lo: U64, hi: U64, rows: NDArray[np.integer]) -> None:
        """Adds keys that are unique and absent (not checked), with their rows (non-negative, unique)."""
        if not rows.size:
            return
        narrow: Rows = rows.astype(np.int32, copy=False)
        if not self._shared:
            self._store_keys(lo, hi, narrow)
        if 2 * (self._occupied + rows.size) > self._slots.size:
            # Room to spare, or a full table whose keys come and go would be rebuilt at every batch.
            self._rebuild(_bits_for((self._size + rows.size) * 4 // 3))
        self._place(lo, hi, narrow)

    def remove(self, lo: U64, hi: U64) -> None:
        """Removes keys (unique); a key that is not there is ignored."""
        rows, slots = self._probe(lo, hi)
        found = slots[rows >= 0]
        self._slots[found] = _REMOVED
        self._size -= found.size

    def rebuild(self, rows: NDArray[np.integer]) -> None:
        """Forgets everything and indexes ``rows``, whose keys the shared key arrays hold."""
        self._refill(rows.astype(np.int32, copy=False), _bits_for(rows.size))

    def _own_keys(self) -> tuple[U64, U64]:
        return self._lo, self._hi

    def _store_keys(self, lo: U64, hi: U64, rows: Rows) -> None:
        needed = int(rows.max()) + 2
        if needed > self._lo.size:
            room = max(needed, self._lo.size * 3 // 2)
            self._lo = np.concatenate((self._lo, np.zeros(room - self._lo.size, np.uint64)))
            self._hi = np.concatenate((self._hi, np.zeros(room - self._hi.size, np.uint64)))
        self._lo[rows] = lo
        self._hi[rows] = hi

    def _probe(self, lo: U64, hi: U64) -> tuple[Rows, Positions]:
        """The row (or -1) and the last slot looked at, of each key."""
        slots = _homes(lo, hi, self._bits)
        rows = self._slots.take(slots)
        key_lo, key_hi = self._keys()
        at = rows.astype(np.intp)
        # An empty slot's -1 and a removed one's -2 read some key from the end of the arrays: harmless, not a hit.
        hit = key_lo.take(at) == lo
        hit &= key_hi.take(at) == hi
        hit &= rows >= 0
        if hit.all():
            return rows, slots
        open_ = places(~hit)
        state = rows.take(open_)
        rows[open_] = _EMPTY
        open_ = open_[state != _EMPTY]
        step = 0
        mask = self._slots.size - 1
        while open_.size:
            step += 1
            slot = slots.take(open_)
            slot += step
            slot &= mask
            slots[open_] = slot
            row = self._slots.take(slot)
            at = row.astype(np.intp)
            hit = (key_lo.take(at) == lo.take(open_)) & (key_hi.take(at) == hi.take(open_)) & (row >= 0)
            rows[open_[hit]] = row[hit]
            open_ = open_[~hit & (row != _EMPTY)]
        return rows, slots

    def _place(self, lo: U64, hi: U64, rows: Rows) -> None:
        table = self._slots
        mask = table.size - 1
        slots = _homes(lo, hi, self._bits)
        step = 0
        self._size += rows.size
        while rows.size:
            before = table.take(slots)
            free = places(before < 0)
            wanted = slots.take(free)
            table[wanted] = rows.take(free)
            # Of several keys that want one slot the table keeps one; the others go on.
            placed = np.zeros(rows.size, np.bool_)
            placed[free] = table.take(wanted) == rows.take(free)
            self._occupied += int(np.count_nonzero(placed & (before == _EMPTY)))
            step += 1
            left = places(~placed)
            rows = rows.take(left)
            slots = slots.take(left)
            slots += step
            slots &= mask

    def _rebuild(self, bits: int) -> None:
        self._refill(self._slots[self._slots >= 0], bits)

    def _refill(self, rows: Rows, bits: int) -> None:
        self._bits = bits
        self._slots = np.full(1 << bits, _EMPTY, np.int32)
        self._occupied = 0
        self._size = 0
        key_lo, key_hi = self._keys()
        self._place(key_lo.take(rows), key_hi.take(rows), rows)


def first_occurrences(lo: U64, hi: U64) -> tuple[Positions, Positions]:
    """Factorises keys in the order of their first appearance.

    Returns:
        ``(unique_positions, inverse)``: the ascending positions at which a key appears first, and for every position
        the number of its key in that order; ``lo[unique_positions][inverse] == lo``.
    """
    n = lo.size
    bits = _bits_for(n)
    table = np.full(1 << bits, _EMPTY, np.intp)
    mask = table.size - 1
    slots = _homes(lo, hi, bits)
    first = np.empty(n, np.intp)
    open_ = np.arange(n, dtype=np.intp)
    step = 0
    while open_.size:
        empty = places(table.take(slots) == _EMPTY)
        # Backwards: of repeated indices numpy keeps the last assignment, which is then the earliest position.
        table[slots.take(empty)[::-1]] = open_.take(empty)[::-1]
        holder = table.take(slots)
        same = (lo.take(holder) == lo.take(open_)) & (hi.take(holder) == hi.take(open_))
        first[open_[same]] = holder[same]
        left = places(~same)
        open_ = open_.take(left)
        step += 1
        slots = slots.take(left)
        slots += step
        slots &= mask
    unique = places(first == np.arange(n))
    rank = np.empty(n, np.intp)
    rank[unique] = np.arange(unique.size)
    return unique, rank.take(first)
