"""The state of one shard: its tables, objects and scalars, and the blocks that its state log is made of.

Every transaction gives one block: what it changed, and, unless it is spared that, the next slice of a checkpoint that
goes round for ever. Blocks applied in order, from one in which a round starts and over at least one whole round, give
the live state exactly.

Why: a row that is live at the end was passed by the slice of that round, which wrote all of it as it was then, or was
allocated behind the slice, which is a change; and every later change is in a later block. A row that was freed before
the slice reached it is in no slice. A transaction that is rolled back leaves no trace, its block included.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fuseboard_streams.core.blocks import (
    StateFormatError,
    decode,
    encode,
    pack_bytes,
    pack_text,
    unpack_bytes,
    unpack_text,
)
from fuseboard_streams.core.objects import Objects
from fuseboard_streams.core.runs import places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from fuseboard_streams.core.objects import ObjectKey
    from fuseboard_streams.core.tables import Column, Family, Table

    Rows = NDArray[np.int32]
    Bits = NDArray[np.bool_]
    Array = NDArray[Any]
    Named = list[tuple[str, Array]]
    Scalar = int | float | str | bool | None

_TEXT_BYTES = 32  # what a string is taken to cost when a slice is cut
_OBJECT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Delta:
    """What one transaction adds to the state log."""

    block: bytes
    starts_round: bool
    ends_round: bool


@dataclass(frozen=True, slots=True)
class _Cursor:
    """Where the next slice begins: a row of a table, or (``table`` past the last one) behind an object's key."""

    table: int = 0
    row: int = 0
    key: ObjectKey | None = None
    started: bool = False  # whether this round has had a slice
    sequence: int = 0  # number of the last block


@dataclass(slots=True)
class _Slice:
    segments: list[tuple[Table, int, int]]
    keys: list[ObjectKey]
    starts: bool
    ends: bool


class Store:
    """Tables, objects and scalars under one transaction, and their blocks.

    ``scalars`` is a plain dictionary of JSON scalars (a clock, counters), written whole into every block.
    The owner commits only after the log has the block for good; ``encode_changes`` comes before, and nothing may be
    written between the two.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables: dict[str, Table] = {table.name: table for table in tables}
        self.objects = Objects()
        self.scalars: dict[str, Scalar] = {}
        self._list = list(tables)
        self._cursor = _Cursor()
        self._before = (self._cursor, self.scalars.copy())
        self._expiry: dict[str, Callable[[Rows], Bits]] = {}
        self._hooks: list[Callable[[], None]] = []
        self._open = False
        self._sealed = False
        self._restored = 0
        self._restoring = False
        self._whole_rounds = 0
        self._from_the_first = False

    # -- one transaction ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Opens a transaction."""
        if self._open:
            raise RuntimeError("store: begin() inside a transaction; commit() or rollback() first")
        self._require(not self._restoring, "begin()", "finish_restore() first")
        for table in self._list:
            table.begin()
        self.objects.begin()
        self._before = (self._cursor, self.scalars.copy())
        self._open, self._sealed = True, False

    def commit(self) -> None:
        """Ends the transaction: its block is in the log for good."""
        self._require(self._open, "commit()")
        for table in self._list:
            table.commit()
        self.objects.commit()
        self._open = False

    def rollback(self) -> None:
        """Puts everything back as it was at ``begin``, the checkpoint's cursor included."""
        self._require(self._open, "rollback()")
        for table in self._list:
            table.rollback()
        self.objects.rollback()
        self._cursor, scalars = self._before
        self.scalars.clear()
        self.scalars.update(scalars)
        self._open = False

    def expire(self, table: str, predicate: Callable[[Rows], Bits]) -> None:
        """Lets the checkpoint's slice forget rows.

        ``predicate`` gets the slice's live rows and answers which have expired; those are freed within the transaction
        in which the slice is cut (so a rollback brings them back). It may change other state of this store too.
        """
        self._expiry[self.tables[table].name] = predicate

    def on_restored(self, hook: Callable[[], None]) -> None:
        """``finish_restore`` calls ``hook`` when every table is complete."""
        self._hooks.append(hook)

    def encode_changes(self, slice_bytes: int) -> Delta:
        """The block of this transaction; afterwards it can only be committed or rolled back.

        Args:
            slice_bytes: about how much of the rolling checkpoint to add, in bytes before they are narrowed: at least
                one row or object, or with 0 nothing, unless a round begins here.
        """
        self._require(self._open and not self._sealed, "encode_changes()")
        part = self._advance(slice_bytes)
        for table in self._list:
            table.seal()
        self.objects.seal()
        self._sealed = True
        arrays: Named = []
        for table in self._list:
            arrays += _changes(table)
        for table, start, stop in part.segments:
            arrays += _checkpoint(table, start, stop)
        put, gone = self.objects.changes()
        keys = sorted({*put, *part.keys})
        arrays += _objects("put", keys)
        arrays += _objects("del", gone)
        if keys:
            values, lengths = pack_bytes([self.objects.value(key) for key in keys])
            arrays += [("put/value", values), ("put/value#", lengths)]
        return Delta(encode(arrays, self._meta(part)), part.starts, part.ends)

    # -- restoring ---------------------------------------------------------------------------------------------------

    def apply(self, block: bytes) -> None:
        """Applies the next block of the log to a new store; the first one must start a round.

        A store that refused a block is to be thrown away.

        Raises:
            StateFormatError: damaged, out of order, or of tables or columns that this version does not know.
        """
        self._require(not self._open, "apply()", "commit() or rollback() first")
        self._require(self._restored > 0 or not self._cursor.sequence, "apply()", "restore into a new store")
        arrays, meta = decode(block)
        self._restoring = True
        try:
            self._check_order(meta)
            for name, high_water in meta["tables"].items():
                self._table(name).restore_shape(high_water)
            reader = _Reader(arrays)
            for name in self.tables:
                if name in meta["tables"]:
                    reader.table(self.tables[name])
            self.objects.restore(zip(reader.keys("put"), reader.values(), strict=True), reader.keys("del"))
            reader.finish()
            table, row, kind, key = meta["cursor"]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise _unreadable(f"a block of it does not have the expected parts ({error!r})") from error
        self.scalars.clear()
        self.scalars.update(meta["scalars"])
        self._cursor = _Cursor(
            table=self._list.index(self._table(table)) if table is not None else len(self._list),
            row=row,
            key=(kind, key) if kind is not None else None,
            started=meta["started"],
            sequence=meta["sequence"],
        )
        self._restored += 1

    def finish_restore(self) -> None:
        """Completes the restore: indexes, sizes, and then the owner's hooks.

        Raises:
            StateFormatError: the blocks did not hold a whole round, so rows are missing.
        """
        if self._restored and not (self._whole_rounds or self._from_the_first):
            raise _unreadable("it does not hold one whole round of the checkpoint")
        for table in self._list:
            table.finish_restore()
        self._restoring = False
        for hook in self._hooks:
            hook()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _require(self, allowed: bool, call: str, instead: str = "begin() first") -> None:
        if not allowed:
            raise RuntimeError(f"store: {call} is out of order; {instead}")

    def _table(self, name: str) -> Table:
        if name not in self.tables:
            raise _unknown(f"table {name!r}")
        return self.tables[name]

    def _check_order(self, meta: Mapping[str, Any]) -> None:
        sequence, starts = int(meta["sequence"]), bool(meta["starts"])
        if not self._restored:
            if not starts:
                raise _unreadable(f"block {sequence}, the first one read, does not start a round")
            self._from_the_first = sequence == 1
        elif sequence != self._cursor.sequence + 1:
            raise _unreadable(f"block {sequence} follows block {self._cursor.sequence}")
        self._whole_rounds += bool(meta["ends"])

    def _meta(self, part: _Slice) -> dict[str, Any]:
        cursor = self._cursor
        table = self._list[cursor.table].name if cursor.table < len(self._list) else None
        kind, key = cursor.key or (None, None)
        return {
            "tables": {table.name: table.high_water for table in self._list},
            "scalars": self.scalars,
            "cursor": [table, cursor.row, kind, key],
            "started": cursor.started,
            "sequence": cursor.sequence,
            "starts": part.starts,
            "ends": part.ends,
        }

    def _advance(self, budget: int) -> _Slice:
        """Cuts the next slice, frees what has expired in it, and moves the cursor."""
        cursor = self._cursor
        part = _Slice([], [], starts=not cursor.started, ends=False)
        cursor = replace(cursor, started=True, sequence=cursor.sequence + 1)
        if budget <= 0 and not part.starts:
            self._cursor = cursor
            return part
        left = max(1, budget)
        while left > 0 and cursor.table < len(self._list):
            table = self._list[cursor.table]
            stop, cost = _cut(table, cursor.row, left)
            self._forget(table, cursor.row, stop)
            if stop > cursor.row:
                part.segments.append((table, cursor.row, stop))
            left -= cost
            done = stop >= table.high_water
            cursor = replace(cursor, table=cursor.table + 1, row=0) if done else replace(cursor, row=stop)
        if cursor.table >= len(self._list):
            for key in self.objects.after(cursor.key):
                if left <= 0:
                    break
                part.keys.append(key)
                left -= _OBJECT_BYTES + len(key[1]) + len(self.objects.value(key))
            else:
                part.ends = True
            if part.keys:
                cursor = replace(cursor, key=part.keys[-1])
        self._cursor = _Cursor(sequence=cursor.sequence) if part.ends else cursor
        return part

    def _forget(self, table: Table, start: int, stop: int) -> None:
        predicate = self._expiry.get(table.name)
        if predicate is not None and stop > start:
            rows = _live_rows(table, start, stop)
            if rows.size:
                table.free(rows[predicate(rows)])


def _live_rows(table: Table, start: int, stop: int) -> Rows:
    rows: Rows = places(table.live[start:stop]).astype(np.int32)
    rows += np.int32(start)
    return rows


def _row_bytes(family: Family) -> int:
    return sum(_TEXT_BYTES if column.is_text else column.dtype.itemsize * column.width for column in family.columns)


def _cut(table: Table, start: int, budget: int) -> tuple[int, int]:
    """Where a slice of about ``budget`` bytes from row ``start`` ends (at least one row on), and what it costs."""
    stop = min(table.high_water, start + max(1024, budget))
    if stop <= start:
        return start, 0
    # Dead rows cost an eighth of a byte, or a slice could have to look at millions of them.
    cost = np.ones(stop - start, np.int64)
    cost += table.live[start:stop].astype(np.int64) << 3
    for family in table.logged_families:
        cost += table.used_range(family.name, start, stop).astype(np.int64) * (8 * _row_bytes(family))
    spent = np.cumsum(cost)
    count = min(int(np.searchsorted(spent, 8 * budget)) + 1, spent.size)
    return start + count, max(1, int(spent[count - 1]) >> 3)


def _column(label: str, column: Column, values: Array) -> Named:
    if not column.is_text:
        return [(label, values)]
    buffer, lengths = pack_text(values.tolist())
    return [(label, buffer), (f"{label}#", lengths)]


def _family(prefix: str, table: Table, family: Family, rows: Rows) -> Named:
    if not rows.size:
        return []
    label = f"{prefix}/{table.name}/{family.name}"
    arrays: Named = [(label, rows)]
    whole = int(rows[-1]) - int(rows[0]) + 1 == rows.size
    for column in family.columns:
        source = table[column.name]
        values = source[int(rows[0]) : int(rows[-1]) + 1] if whole else source.take(rows, axis=0)
        arrays += _column(f"{label}/{column.name}", column, values)
    return arrays


def _changes(table: Table) -> Named:
    """Rows freed, rows allocated, and per family the rows that changed with their values."""
    arrays: Named = []
    for prefix, rows in (("freed", table.freed()), ("new", table.allocated())):
        if rows.size:
            arrays.append((f"{prefix}/{table.name}", rows))
    for family in table.logged_families:
        arrays += _family("set", table, family, table.changed(family.name))
    return arrays


def _checkpoint(table: Table, start: int, stop: int) -> Named:
    """The live rows of a slice, and per family those that are used with their values."""
    rows = _live_rows(table, start, stop)
    if not rows.size:
        return []
    arrays: Named = [(f"live/{table.name}", rows)]
    for family in table.logged_families:
        arrays += _family("all", table, family, table.used_rows(family.name, rows))
    return arrays


def _objects(prefix: str, keys: Sequence[ObjectKey]) -> Named:
    if not keys:
        return []
    arrays: Named = []
    for part, texts in (("kind", [kind for kind, _ in keys]), ("key", [key for _, key in keys])):
        buffer, lengths = pack_text(texts)
        arrays += [(f"{prefix}/{part}", buffer), (f"{prefix}/{part}#", lengths)]
    return arrays


class _Reader:
    """Takes a block's arrays one by one, so that what is left over is noticed."""

    def __init__(self, arrays: dict[str, Array]) -> None:
        self._arrays = arrays

    def table(self, table: Table) -> None:
        """Applies everything about one table; the order matters, for a freed row may be in use again."""
        freed = self._take(f"freed/{table.name}")
        if freed is not None:
            table.restore_dead(freed)
        for prefix in ("new", "live"):
            rows = self._take(f"{prefix}/{table.name}")
            if rows is not None:
                table.restore_live(rows)
        for prefix in ("set", "all"):
            for family in table.logged_families:
                self._family(f"{prefix}/{table.name}/{family.name}", table, family)

    def keys(self, prefix: str) -> Iterator[ObjectKey]:
        """The keys of objects."""
        return zip(self._texts(f"{prefix}/kind"), self._texts(f"{prefix}/key"), strict=True)

    def values(self) -> list[bytes]:
        """The values of objects."""
        buffer, lengths = self._take("put/value"), self._take("put/value#")
        return [] if buffer is None or lengths is None else unpack_bytes(buffer, lengths)

    def finish(self) -> None:
        """Refuses a block of which something was not understood."""
        if self._arrays:
            raise _unknown(f"{next(iter(self._arrays))!r}")

    def _family(self, label: str, table: Table, family: Family) -> None:
        rows = self._take(label)
        if rows is None:
            return
        table.restore_used(family.name, rows)
        for column in family.columns:
            values = self._take(f"{label}/{column.name}")
            if values is None:
                continue  # a column that is newer than the block: its default
            if column.is_text:
                texts = unpack_text(values, self._arrays.pop(f"{label}/{column.name}#"))
                values = np.empty(rows.size, object)
                values[:] = texts
            if values.dtype != column.dtype or values.shape != column.empty(rows.size).shape:
                raise _unknown(f"{label}/{column.name} as {values.dtype} of shape {values.shape}")
            table.restore_column(column.name, rows, values)

    def _texts(self, label: str) -> list[str]:
        buffer, lengths = self._take(label), self._take(f"{label}#")
        return [] if buffer is None or lengths is None else unpack_text(buffer, lengths)

    def _take(self, label: str) -> Array | None:
        return self._arrays.pop(label, None)


def _unknown(what: str) -> StateFormatError:
    return StateFormatError(
        f"state log: it holds {what}, which this version does not know; run the version that wrote it, or a newer one, "
        f"or reset the shard's state"
    )


def _unreadable(what: str) -> StateFormatError:
    return StateFormatError(
        f"state log: {what}; restore from where the last complete round began, read committed records only, "
        f"or, if records are missing, restore the `state` topic from a copy or reset the shard's state"
    )
