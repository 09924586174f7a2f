"""Walks through many Avro records at once, one field after the other, without decoding them.

An Avro block has no record boundaries: a reader that is given several records as one block shifts all that follow a bad
one, may accept union and enum indexes that do not exist, or may panic. So before a block is read, a vector of cursors,
one per record, goes over the fields. A record that is *plain* (every tag, index and length valid and short, the cursor
ending exactly where the record ends) means the same to every Avro reader; any other is left to a reader of single
records, which decides what it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Positions: TypeAlias = NDArray[np.int64]
    Flags: TypeAlias = NDArray[np.bool_]
    Bytes: TypeAlias = NDArray[np.uint8]
    Words: TypeAlias = NDArray[np.uint64]

PADDING = 16
"""Bytes that must follow the last record, so that words can be read past its end."""

_CONTINUE = np.uint64(0x8080_8080_8080_8080)
_ONE = np.uint64(1)
_LOW_7 = np.uint64(0x7F)
_PRESENT = 2
_LENGTH_BYTES = 4
_WORDS_AT_A_TIME = 1 << 15


@dataclass(frozen=True, slots=True)
class Step:
    """How to get over one field."""

    kind: str
    """``text``, ``bytes``, ``varint`` (int, long), ``index`` (enum), ``boolean`` or ``double``."""
    nullable: bool = False
    symbols: int = 0
    """For an index, how many are valid; at most 64, so that they take one byte."""


class Screen:
    """Cursors over records that lie one after the other in one buffer."""

    def __init__(self, buffer: bytes, starts: Positions, ends: Positions) -> None:
        """Put a cursor on each record.

        Args:
            buffer: The records, with at least :data:`PADDING` bytes after the last.
            starts: int64[n], where the body of each record begins.
            ends: int64[n], where it ends.
        """
        self._bytes: Bytes = np.frombuffer(buffer, np.uint8)
        # A word may begin at any byte: overlapping words with a stride of one byte.
        self._words: Words = np.ndarray((len(buffer) - 7,), "<u8", buffer, 0, (1,))
        self._stop = int(ends[-1]) + 1
        self._ends = ends
        self._at = starts.copy()
        self._plain: Flags = np.ones(len(starts), np.bool_)
        self._block = int(starts[0]) if len(starts) else 0, int(ends[-1]) if len(starts) else 0
        self._continued = 0

    def ascii_only(self, header: bytes, steps: Sequence[Step]) -> bool:
        """Whether all text is certainly ASCII, after all records have been found plain.

        The bytes above 127 that are not text are those with which a varint goes on, and they have been counted. Where
        there are doubles or bytes, which may have any, the answer is no.

        Args:
            header: What precedes each record's body and is not text.
            steps: The fields.
        """
        if any(step.kind == "double" or step.kind == "bytes" for step in steps):
            return False
        between = sum(byte > 127 for byte in header) * (len(self._ends) - 1)
        return high_bytes(self._bytes, *self._block) == self._continued + between

    def plain(self, steps: Sequence[Step]) -> Flags:
        """bool[n]: which records are plain according to the fields given."""
        for step in steps:
            if step.nullable:
                self._nullable(step)
            else:
                self._at, bad = self._step(step, self._at)
                if bad is not None:
                    self._plain &= ~bad
            # A lost cursor may point anywhere; it stays behind its record's end, which is how it is told.
            np.minimum(self._at, self._stop, out=self._at)
        self._plain &= self._at == self._ends
        return self._plain

    def _nullable(self, step: Step) -> None:
        tags = self._bytes.take(self._at, mode="clip")
        self._at += 1
        present = tags == _PRESENT
        wrong = tags.astype(np.bool_) ^ present
        if wrong.any():
            self._plain &= ~wrong
        rows = np.flatnonzero(present)
        if len(rows) == len(tags):
            self._at, bad = self._step(step, self._at)
        elif len(rows):
            self._at[rows], bad = self._step(step, self._at[rows])
        else:
            bad = None
        if bad is not None:
            self._plain[rows[bad]] = False

    def _step(self, step: Step, at: Positions) -> tuple[Positions, Flags | None]:
        """New positions after a field, and which records are not plain there (None: all are)."""
        if step.kind in ("text", "bytes"):
            return self._data(at)
        if step.kind == "varint":
            return self._varint(at)
        if step.kind == "double":
            return at + 8, None
        codes = self._bytes.take(at, mode="clip")
        bad = codes > 1 if step.kind == "boolean" else (codes >= 2 * step.symbols) | ((codes & 1) == 1)
        return at + 1, bad if bad.any() else None

    def _data(self, at: Positions) -> tuple[Positions, Flags | None]:
        lengths = self._bytes.take(at, mode="clip")
        # A set low bit is a negative length, a set high bit a length of 64 or more: both are rare.
        odd = (lengths & 0x81) != 0
        after = at + (lengths >> 1) + 1
        if not odd.any():
            return after, None
        rows = np.flatnonzero(odd)
        after[rows], wrong = self._long_data(at[rows])
        bad = np.zeros(len(at), np.bool_)
        bad[rows] = wrong
        return after, bad

    def _long_data(self, at: Positions) -> tuple[Positions, Flags]:
        words = self._words[np.minimum(at, self._stop)]
        size = _varint_bytes(words)
        wrong = (size > _LENGTH_BYTES) | ((words & _ONE) == _ONE)
        value = np.zeros(len(at), np.uint64)
        for i in range(_LENGTH_BYTES):
            group = (words >> np.uint64(8 * i)) & _LOW_7
            value |= np.where(size > i, group << np.uint64(7 * i), np.uint64(0))
        self._continued += int(size.sum(dtype=np.int64)) - len(size)
        return at + size + (value >> _ONE).astype(np.int64), wrong

    def _varint(self, at: Positions) -> tuple[Positions, Flags | None]:
        words = self._words[at]
        size = _varint_bytes(words)
        self._continued += int(size.sum(dtype=np.int64)) - len(size)
        long = (words & _CONTINUE) == _CONTINUE
        if not long.any():
            return at + size, None
        rows = np.flatnonzero(long)
        ninth = self._bytes.take(at[rows] + 8, mode="clip")
        tenth = self._bytes.take(at[rows] + 9, mode="clip")
        more = ninth > 127
        after = at + size
        after[rows] += 1 + more
        self._continued += len(rows) + int(more.sum())
        bad = np.zeros(len(at), np.bool_)
        # The tenth byte holds the 64th bit and nothing else.
        bad[rows] = more & (tenth > 1)
        return after, bad


def _varint_bytes(words: Words) -> NDArray[np.integer[Any]]:
    """uint8[n]: how many of a word's eight bytes a varint takes that begins with it; 8 also if it goes on."""
    ends = ~words & _CONTINUE
    return np.bitwise_count(ends ^ (ends - _ONE)) >> 3


def high_bytes(data: Bytes, start: int, stop: int) -> int:
    """How many bytes of a stretch are above 127."""
    whole = (stop - start) // 8 * 8
    words: Words = np.ndarray((whole // 8,), "<u8", data, start)
    found = int(np.count_nonzero(data[start + whole : stop] > 127))
    for begin in range(0, len(words), _WORDS_AT_A_TIME):
        found += int(np.bitwise_count(words[begin : begin + _WORDS_AT_A_TIME] & _CONTINUE).sum(dtype=np.int64))
    return found
