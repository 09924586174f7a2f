"""Many records at once to columns: the records of a batch are read as one Avro block.

The result is what reading each record by itself gives (:func:`fuseboard_schemas.codec.decode_fields`), only faster, and
no bad record changes another: see :mod:`fuseboard_schemas.screening`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl

from fuseboard_schemas import wire
from fuseboard_schemas.codec import DecodeError, read_body, reading_plan, writer_of
from fuseboard_schemas.encoding import INT_MAX, INT_MIN
from fuseboard_schemas.layouts import SYNC, Layout, columns, layout_of
from fuseboard_schemas.records.enums import DeadLetterReason
from fuseboard_schemas.screening import Screen

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from fuseboard_schemas.registry import Resolver, Writer

    Positions: TypeAlias = NDArray[np.int64]

_SCREENED_AT_A_TIME = 8_192
_HEADER_BITS = np.uint64((1 << 8 * wire.HEADER_LENGTH) - 1)


@dataclass(frozen=True, slots=True)
class Bad:
    """A value that is no record."""

    position: int
    """Its index in the values."""
    reason: DeadLetterReason
    detail: str


@dataclass(frozen=True, slots=True)
class Values:
    """The values of a batch, packed: a hundred thousand objects of half a kilobyte are slow to go over twice."""

    parts: list[bytes]
    """The values one after the other, in pieces of any number of them."""
    lengths: Positions
    """int64[n]: the length of each."""
    missing: NDArray[np.bool_] | None = None
    """bool[n]: which are null instead; None for none of them."""

    def __len__(self) -> int:
        """How many they are."""
        return len(self.lengths)

    @classmethod
    def of(cls, values: Sequence[bytes | None]) -> Values:
        """Pack values; None is a null."""
        n = len(values)
        try:
            return cls([b"".join(values)], np.fromiter(map(len, values), np.int64, n))  # type: ignore[arg-type]
        except TypeError:
            return cls(
                [b"".join(value or b"" for value in values)],
                np.fromiter((len(value or b"") for value in values), np.int64, n),
                np.fromiter((value is None for value in values), np.bool_, n),
            )

    @classmethod
    def joined(cls, several: Sequence[Values]) -> Values:
        """Several batches, one after the other."""
        missing = None
        if any(each.missing is not None for each in several):
            none = [np.zeros(len(each), np.bool_) if each.missing is None else each.missing for each in several]
            missing = np.concatenate(none)
        parts = [part for each in several for part in each.parts]
        return cls(parts, np.concatenate([each.lengths for each in several]), missing)

    def some(self, positions: Sequence[int]) -> list[bytes | None]:
        """The values at some positions."""
        ends, stops = np.cumsum(self.lengths), np.cumsum(list(map(len, self.parts)))
        found: list[bytes | None] = []
        for position in positions:
            end, length = int(ends[position]), int(self.lengths[position])
            # An empty value may seem to begin in the next piece; that is as good.
            piece = min(int(np.searchsorted(stops, end - length, side="right")), len(self.parts) - 1)
            stop = end - (int(stops[piece]) - len(self.parts[piece]))
            null = self.missing is not None and bool(self.missing[position])
            found.append(None if null else self.parts[piece][stop - length : stop])
        return found

    def unpacked(self) -> list[bytes | None]:
        """The values one by one."""
        blob, ends = b"".join(self.parts), np.cumsum(self.lengths)
        found: list[bytes | None] = [
            blob[begin:end] for begin, end in zip((ends - self.lengths).tolist(), ends.tolist(), strict=True)
        ]
        for position in np.flatnonzero(self.missing).tolist() if self.missing is not None else ():
            found[position] = None
        return found


@dataclass(frozen=True, slots=True)
class Decoded:
    """The good records of a batch as columns, and the bad ones by name."""

    frame: pl.DataFrame
    """One row per good record in the order of the values, columns as in the current schema: strings, Int64, Int32,
    Float64, Boolean, Binary; times as Int64 microseconds; enums as UInt8, indexes of the schema's symbols."""
    positions: Positions | None
    """int64[rows], index of each row in the values; None means that every value was good."""
    bad: list[Bad]
    """The others, in the order of the values."""


def decode(
    record_name: str,
    values: Values | Sequence[bytes | None],
    resolver: Resolver,
    max_bytes: int = wire.MAX_EVENT_BYTES,
    only: Collection[str] | None = None,
) -> Decoded:
    """Decode the values of a batch. Thread-safe.

    Args:
        record_name: Name of the record that all of them should be; it must be flat.
        values: Values in the wire format; None is a tombstone.
        resolver: Finds the writers' schemas.
        max_bytes: Longer values are bad.
        only: The columns that are wanted; None for all. The others are checked as well as these.

    Raises:
        CatalogueError: There is no such record.
        NotFlatError: The record has arrays or nested records.
        UnreachableError: The schema registry could not be asked about a schema; nothing was decoded.
    """
    packed = values if isinstance(values, Values) else Values.of(values)
    names = [column.name for column in columns(record_name) if only is None or column.name in only]
    return _Batch(record_name, packed, resolver, max_bytes, names).decode()


@dataclass(slots=True)
class _Batch:
    """The work on one batch."""

    record: str
    packed: Values
    resolver: Resolver
    max_bytes: int
    names: list[str]
    """The columns that are wanted."""
    values: list[bytes | None] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    frames: list[pl.DataFrame] = field(default_factory=list)
    positions: list[Positions] = field(default_factory=list)

    def decode(self) -> Decoded:
        whole = self._whole()
        if whole is not None:
            return Decoded(whole, None, [])
        self.values = self.packed.unpacked()
        for header, rows in self._groups().items():
            self._group(header, np.asarray(rows, np.int64))
        return self._assembled()

    def _whole(self) -> pl.DataFrame | None:
        """The batch as one block if it is nothing but plain records of one schema, else None."""
        packed = self.packed
        if len(packed) == 0 or packed.missing is not None:
            return None
        if int(packed.lengths.min()) < wire.HEADER_LENGTH or int(packed.lengths.max()) > self.max_bytes:
            return None
        header = packed.parts[0][: wire.HEADER_LENGTH]
        if header[0] != wire.MAGIC:
            return None
        try:
            layout = layout_of(writer_of(wire.schema_id(header), self.record, self.resolver), self.record)
        except DecodeError:
            return None
        if layout is None:
            return None
        blob, starts, ends = _container(layout, packed)
        screens = _screens(blob, starts, ends)
        if not all(screen.plain(layout.steps).all() for screen in screens):
            return None
        if not _headed(layout, blob, starts).all():
            return None
        # Text that is not wanted need not be read to know that it is valid, if it is ASCII.
        some = len(self.names) < len(layout.aligned) and all(
            screen.ascii_only(layout.header, layout.steps) for screen in screens
        )
        frame = _read(layout, blob, [*self.names, *layout.ints] if some else None)
        if frame is None or _unusable(layout, frame).any():
            return None
        return frame.select([layout.aligned[name] for name in self.names])

    def _groups(self) -> dict[bytes, list[int]]:
        """Positions by header, of the values that have one."""
        groups: dict[bytes, list[int]] = {}
        for position, value in enumerate(self.values):
            if value is None:
                self._reject(position, DeadLetterReason.TOMBSTONE, "The record has no value.")
            elif len(value) > self.max_bytes:
                detail = f"The value has {len(value)} bytes; at most {self.max_bytes} are allowed."
                self._reject(position, DeadLetterReason.TOO_LARGE, detail)
            else:
                groups.setdefault(value[: wire.HEADER_LENGTH], []).append(position)
        return groups

    def _group(self, header: bytes, rows: Positions) -> None:
        """Decode the values that share a header."""
        try:
            writer = writer_of(wire.schema_id(header), self.record, self.resolver)
        except wire.WireFormatError as error:
            for position in rows.tolist():
                self._reject(position, DeadLetterReason.NOT_WIRE_FORMAT, str(error))
            return
        except DecodeError as error:
            for position in rows.tolist():
                self._reject(position, error.reason, error.detail)
            return
        layout = layout_of(writer, self.record)
        if layout is None:
            self._one_by_one(writer, rows)
            return
        plain = _screened(layout, *_container(layout, self._some(rows)))
        self._plain(writer, layout, rows[plain])
        self._one_by_one(writer, rows[~plain])

    def _plain(self, writer: Writer, layout: Layout, rows: Positions) -> None:
        """Decode plain records; those with invalid text or numbers out of range by themselves."""
        if len(rows) == 0:
            return
        values = self._some(rows)
        frame = _read(layout, _container(layout, values)[0])
        if frame is None:
            frame = _read(layout, _container(layout, values, text=False)[0])
        if frame is None:
            self._one_by_one(writer, rows)
            return
        unusable = _unusable(layout, frame)
        usable = frame.filter(~unusable).with_columns(pl.col(layout.texts).cast(pl.String))
        if len(usable):
            self._keep(usable.select([layout.aligned[name] for name in self.names]), rows[~unusable])
        self._one_by_one(writer, rows[unusable])

    def _one_by_one(self, writer: Writer, rows: Positions) -> None:
        """Decode each value by itself; this is where bad ones are told from merely unusual ones."""
        plan = reading_plan(writer, self.record)
        good, kept = [], []
        for position in rows.tolist():
            value = self.values[position]
            assert value is not None
            try:
                good.append(read_body(value, plan, self.record))
            except DecodeError as error:
                self._reject(position, error.reason, error.detail)
            else:
                kept.append(position)
        if good:
            self._keep(_frame(self.record, good, self.names), np.asarray(kept, np.int64))

    def _some(self, rows: Positions) -> Values:
        return Values.of([self.values[position] for position in rows.tolist()])

    def _keep(self, frame: pl.DataFrame, rows: Positions) -> None:
        self.frames.append(frame)
        self.positions.append(rows)

    def _reject(self, position: int, reason: DeadLetterReason, detail: str) -> None:
        self.bad.append(Bad(position, reason, detail))

    def _assembled(self) -> Decoded:
        """Put the parts into the order of the values."""
        self.bad.sort(key=lambda bad: bad.position)
        if not self.frames:
            return Decoded(_frame(self.record, [], self.names), np.zeros(0, np.int64) if self.bad else None, self.bad)
        frame = pl.concat(self.frames, rechunk=True)
        positions = np.concatenate(self.positions)
        if len(self.frames) > 1:
            order = np.argsort(positions)
            frame, positions = frame[order], positions[order]
        return Decoded(frame, positions if self.bad else None, self.bad)


def _container(layout: Layout, values: Values, *, text: bool = True) -> tuple[bytes, Positions, Positions]:
    """A container file with the values as its one block, and where each value begins and ends in it."""
    head = layout.container(len(values), int(values.lengths.sum()), text=text)
    ends = np.cumsum(values.lengths)
    ends += len(head)
    return b"".join([head, *values.parts, SYNC]), ends - values.lengths, ends


def _screened(layout: Layout, blob: bytes, starts: Positions, ends: Positions) -> NDArray[np.bool_]:
    """bool[n]: which values are plain records with the layout's header."""
    plain = np.concatenate([screen.plain(layout.steps) for screen in _screens(blob, starts, ends)])
    return plain & _headed(layout, blob, starts)


def _screens(blob: bytes, starts: Positions, ends: Positions) -> list[Screen]:
    """Cursors over all values, so many at a time that they stay in the processor's cache."""
    bodies = starts + wire.HEADER_LENGTH
    cuts = range(0, len(starts), _SCREENED_AT_A_TIME)
    return [Screen(blob, bodies[at : at + _SCREENED_AT_A_TIME], ends[at : at + _SCREENED_AT_A_TIME]) for at in cuts]


def _headed(layout: Layout, blob: bytes, starts: Positions) -> NDArray[np.bool_]:
    """bool[n]: which values begin with the layout's header."""
    words: NDArray[np.uint64] = np.ndarray((len(blob) - 7,), "<u8", blob, 0, (1,))
    headed: NDArray[np.bool_] = (words[starts] & _HEADER_BITS) == np.uint64(int.from_bytes(layout.header, "little"))
    return headed


def _read(layout: Layout, blob: bytes, names: Sequence[str] | None = None) -> pl.DataFrame | None:
    """Read some columns, or all, of a screened block; None if a string is not valid UTF-8."""
    wanted = layout.names if names is None else [name for name in layout.names if name in names]
    try:
        return pl.read_avro(io.BytesIO(blob), columns=wanted)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None


def _unusable(layout: Layout, frame: pl.DataFrame) -> NDArray[np.bool_]:
    """bool[rows]: which rows have an int that does not fit in 32 bits, or text read as bytes that is not UTF-8."""
    found: NDArray[np.bool_] = np.zeros(len(frame), np.bool_)
    for name in layout.ints:
        column = frame[name]
        least, most = column.min(), column.max()
        # Two cheap questions nearly always answer the dear one; there is no extreme where all are null.
        if isinstance(least, int) and isinstance(most, int) and (least < INT_MIN or most > INT_MAX):
            found |= ((column < INT_MIN) | (column > INT_MAX)).fill_null(False).to_numpy()
    for name in layout.texts:
        if name not in frame.columns:
            continue
        column = frame[name]
        if column.dtype == pl.Binary:
            found |= _invalid_text(column)
    return found


def _invalid_text(column: pl.Series) -> NDArray[np.bool_]:
    """bool[rows]: which of some bytes are not UTF-8."""
    try:
        column.cast(pl.String)
    except pl.exceptions.PolarsError:
        return np.fromiter(map(_is_invalid_text, column), np.bool_, len(column))
    return np.zeros(len(column), np.bool_)


def _is_invalid_text(data: bytes | None) -> bool:
    try:
        str(data or b"", "utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _frame(record: str, rows: list[dict[str, Any]], names: Sequence[str]) -> pl.DataFrame:
    """Rows as :func:`fuseboard_schemas.codec.read_body` gives them, as some columns."""
    data = {}
    for column in columns(record):
        if column.name not in names:
            continue
        cells = [row[column.name] for row in rows]
        if column.kind == "enum":
            codes: dict[str | None, int | None] = {symbol: code for code, symbol in enumerate(column.symbols)}
            cells = [codes.get(cell) for cell in cells]
        data[column.name] = pl.Series(column.name, cells, dtype=column.dtype)
    return pl.DataFrame(data)
