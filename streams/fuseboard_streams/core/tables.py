"""Keyed state as a struct of arrays: rows are allocated and freed, and a transaction can be undone exactly.

Invariant: a row that is not ``used`` in a family, dead rows included, holds that family's defaults. So allocating a
row writes nothing, and a checkpoint may leave such a row out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fuseboard_schemas.errors import FuseboardError
from fuseboard_streams.core.index import KeyIndex, first_occurrences
from fuseboard_streams.core.runs import places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

    Rows = NDArray[np.int32]
    AnyRows = NDArray[np.integer]
    Bits = NDArray[np.bool_]
    Flags = NDArray[np.uint8]
    Array = NDArray[Any]
    U64 = NDArray[np.uint64]

USED = 1
_DIRTY = 2
_READY = USED | _DIRTY
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SCAN = 4096
_NO_ROWS: NDArray[np.int32] = np.empty(0, np.int32)


class KeyLimitError(FuseboardError):
    """A table has no room for the keys of a batch; nothing was changed."""


class Column:
    """One column: a number (``dtype``) or ``width`` of them a row, or with ``dtype=str`` one Python string a row."""

    __slots__ = ("default", "dtype", "name", "width")

    def __init__(self, name: str, dtype: DTypeLike, width: int = 1, default: int | float | bool | str = 0) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"a column's name is lower_case letters, digits and underscores, not {name!r}")
        self.name = name
        # By name: of an equal type that is not its own object numpy's `ufunc.at` takes forty times as long.
        stored = np.dtype(object) if dtype is str else np.dtype(np.dtype(dtype).newbyteorder("<").str)
        self.dtype: np.dtype[Any] = stored
        if self.dtype.kind not in "iufbO" or width < 1 or (self.is_text and width != 1):
            raise ValueError(f"column {name}: dtype {dtype!r} with width {width} is not supported")
        self.width = width
        self.default = "" if self.is_text else default

    @property
    def is_text(self) -> bool:
        """Whether the column holds strings."""
        return self.dtype.kind == "O"

    def empty(self, rows: int) -> Array:
        """``rows`` rows of defaults: shape ``(rows,)``, or ``(rows, width)`` if the width is more than one."""
        shape = (rows,) if self.width == 1 else (rows, self.width)
        if not self.is_text and not any(np.array(self.default, self.dtype).tobytes()):
            return np.zeros(shape, self.dtype)  # the kernel's zero pages: no memory until it is written
        return np.full(shape, self.default, self.dtype)


@dataclass(frozen=True, slots=True)
class Family:
    """Columns that change together: what is undone, logged and checkpointed as one.

    A ``volatile`` family is undone with a transaction, but neither logged nor checkpointed: its owner computes it anew
    after a restore, before the index is rebuilt.
    """

    name: str
    columns: Sequence[Column]
    volatile: bool = False


class _Undo(NamedTuple):
    rows: NDArray[np.intp]
    flags: Flags
    values: list[Array]


@dataclass(slots=True)
class _FamilyState:
    family: Family
    flags: Flags
    undo: list[_Undo] = field(default_factory=list)


def _distinct(rows: AnyRows, high_water: int) -> NDArray[np.intp]:
    """The rows without repeats, ascending."""
    if high_water <= 16 * rows.size:
        mark = np.zeros(high_water, np.bool_)
        mark[rows] = True
        return places(mark)
    ordered = np.sort(rows)
    keep = np.ones(ordered.size, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=keep[1:])
    return ordered[keep].astype(np.intp)


def _merged(chunks: Sequence[NDArray[Any]]) -> Rows:
    """Disjoint chunks of rows as one ascending array."""
    if not chunks:
        return np.empty(0, np.int32)
    rows = chunks[0] if len(chunks) == 1 else np.sort(np.concatenate(chunks))
    return rows.astype(np.int32)


class Table:
    """Rows of columns in families, with undo for one transaction at a time.

    ``table["column"]`` is the whole array, ``capacity`` rows long: fetch it again after ``allocate``, which may replace
    it. With ``key=("lo", "hi")``, two ``uint64`` columns of one family, the table also keeps an index over them through
    allocation, freeing, rollback and restore: use ``add`` and ``find`` then.
    """

    def __init__(
        self,
        name: str,
        families: Sequence[Family],
        capacity: int = 1024,
        limit: int = 10_000_000,
        key: tuple[str, str] | None = None,
    ) -> None:
        if not _NAME.fullmatch(name) or not all(_NAME.fullmatch(family.name) for family in families):
            raise ValueError(f"table {name!r}: names are lower_case letters, digits and underscores")
        self.name = name
        self.limit = limit
        self._capacity = max(2, capacity)
        self._columns: dict[str, Array] = {}
        self._families: dict[str, _FamilyState] = {}
        for family in families:
            self._families[family.name] = _FamilyState(family, np.zeros(self._capacity, np.uint8))
            for column in family.columns:
                if column.name in self._columns:
                    raise ValueError(f"table {name}: two columns are called {column.name}")
                self._columns[column.name] = column.empty(self._capacity)
        self._live: Bits = np.zeros(self._capacity, np.bool_)
        self._fresh: Bits = np.zeros(self._capacity, np.bool_)  # allocated in this transaction
        self._size = 0
        self._high_water = 0
        self._hint = 0  # no dead row lies below it
        self._born: list[Rows] = []
        self._died: list[Rows] = []
        self._before = (0, 0, 0)
        self._open = False
        self._writable = False
        self._key = key
        self._index = KeyIndex(keys=self._key_arrays) if key else None

    # -- reading -----------------------------------------------------------------------------------------------------

    def __getitem__(self, column: str) -> Array:
        return self._columns[column]

    @property
    def families(self) -> list[Family]:
        """The families, in the order given."""
        return [state.family for state in self._families.values()]

    @property
    def logged_families(self) -> list[Family]:
        """The families that the state log holds."""
        return [family for family in self.families if not family.volatile]

    @property
    def capacity(self) -> int:
        """Length of every column's array."""
        return self._capacity

    @property
    def room(self) -> int:
        """How many more rows the limit allows."""
        return max(0, self.limit - self._size)

    @property
    def size(self) -> int:
        """Number of live rows."""
        return self._size

    @property
    def high_water(self) -> int:
        """One more than the highest row ever allocated."""
        return self._high_water

    @property
    def live(self) -> Bits:
        """``bool[capacity]``: which rows are allocated. Read only."""
        return self._live

    @property
    def nbytes(self) -> int:
        """Bytes held by columns, flags and index; of strings only the references."""
        own = self._live.nbytes + self._fresh.nbytes + (self._index.nbytes if self._index else 0)
        flags = sum(state.flags.nbytes for state in self._families.values())
        return own + flags + sum(column.nbytes for column in self._columns.values())

    def used(self, family: str) -> Bits:
        """``bool[capacity]``: which rows have been written in this family since they were allocated (a copy)."""
        return (self._families[family].flags & USED).view(np.bool_)

    def used_range(self, family: str, start: int, stop: int) -> Bits:
        """``used(family)[start:stop]``."""
        return (self._families[family].flags[start:stop] & USED).view(np.bool_)

    def used_rows(self, family: str, rows: AnyRows) -> Rows:
        """Those of ``rows`` that are used in this family."""
        used = self._families[family].flags.take(rows) & USED
        return rows[used.view(np.bool_)].astype(np.int32, copy=False)

    def find(self, lo: U64, hi: U64) -> Rows:
        """The row of each key, -1 if there is none. Only for a table with a ``key``."""
        return self._indexed().lookup(lo, hi)

    # -- one transaction ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Opens a transaction."""
        if self._open:
            raise RuntimeError(f"table {self.name}: begin() inside a transaction; commit() or rollback() first")
        self._open = self._writable = True
        self._before = (self._size, self._high_water, self._hint)

    def seal(self) -> None:
        """Refuses writes until the transaction ends: its changes have been encoded."""
        self._writable = False

    def commit(self) -> None:
        """Ends the transaction and drops what could undo it."""
        self._require(self._open, "commit()")
        for state in self._families.values():
            for undo in state.undo:
                state.flags[undo.rows] = state.flags.take(undo.rows) & USED
        self._end()

    def rollback(self) -> None:
        """Puts everything back as it was at ``begin``; only the capacity may stay larger."""
        self._require(self._open, "rollback()")
        if self._index is not None:
            self._index.remove(*self._keys_of(self.allocated()))
        for state in self._families.values():
            for undo in state.undo:
                for column, saved in zip(state.family.columns, undo.values, strict=True):
                    self._columns[column.name][undo.rows] = saved
                state.flags[undo.rows] = undo.flags
        for rows in self._born:
            self._live[rows] = False
        for rows in self._died:
            self._live[rows] = True
        self._size, self._high_water, self._hint = self._before
        if self._index is not None:
            died = self.freed()
            self._index.insert(*self._keys_of(died), died)
        self._end()

    def allocate(self, n: int) -> Rows:
        """Takes ``n`` rows, ascending: dead rows first, the lowest first, then fresh ones. They hold the defaults.

        Raises:
            KeyLimitError: more than ``limit`` rows would be live; nothing has changed.
        """
        if self._index is not None:
            raise TypeError(f"table {self.name} has a key: rows are added with add(lo, hi)")
        return self._allocate(n)

    def add(self, lo: U64, hi: U64) -> Rows:
        """Allocates a row for each of these keys (unique, absent), writes the key columns and indexes them.

        Raises:
            KeyLimitError: more than ``limit`` rows would be live; nothing has changed.
        """
        index = self._indexed()
        rows = self._allocate(lo.size)
        name_lo, name_hi = self._key or ("", "")
        for name, values in ((name_lo, lo), (name_hi, hi)):
            self.touch(self._family_of(name), rows)
            self._columns[name][rows] = values
        index.insert(lo, hi, rows)
        return rows

    def add_missing(self, lo: U64, hi: U64) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
        """Adds a row for each different key of these (absent), in their order, as far as there is room.

        Returns:
            The row of each key, -1 where there was no room, and the places at which the new rows' keys first appear.
        """
        first, inverse = first_occurrences(lo, hi)
        heads = first[: self.room]
        made = np.full(len(first), -1, np.int64)
        if heads.size:
            made[: heads.size] = self.add(lo[heads], hi[heads])
        return made[inverse], heads

    def free(self, rows: AnyRows) -> None:
        """Gives rows back: they hold the defaults again and may be allocated again, also in this transaction.

        Raises:
            ValueError: one of them is not live; nothing has changed.
        """
        self._require(self._writable, "free()")
        if not rows.size:
            return
        gone = _distinct(rows, self._high_water)
        self._check_live(gone)
        if self._index is not None:
            self._index.remove(*self._keys_of(gone))
        for state in self._families.values():
            used = gone[(state.flags.take(gone) & USED).view(np.bool_)]
            if used.size:
                self._save(state, used)
                self._clear(state, used)
                state.flags[used] = _DIRTY
        self._live[gone] = False
        died = gone[~self._fresh.take(gone)]
        self._died.append(died.astype(np.int32))
        self._size -= gone.size
        self._hint = min(self._hint, int(gone[0]))

    def touch(self, family: str, rows: AnyRows) -> None:
        """Must precede every write to a family's columns: saves the rows' values once a transaction, marks them used.

        Rows may repeat and may have been touched before.

        Raises:
            ValueError: one of them is not live.
        """
        self._require(self._writable, "touch()")
        state = self._families[family]
        if rows.size and int(rows.min()) < 0:
            raise ValueError(
                f"table {self.name}: row {int(rows.min())} is not a row; add the keys that are missing first"
            )
        pending = state.flags.take(rows) != _READY
        if not pending.any():
            return
        fresh = _distinct(rows[pending], self._high_water)
        self._check_live(fresh)
        self._save(state, fresh)
        state.flags[fresh] = _READY

    def changed(self, family: str) -> Rows:
        """The live rows touched in this family in this transaction, ascending."""
        undo = self._families[family].undo
        return self.used_rows(family, _merged([each.rows for each in undo])) if undo else _NO_ROWS

    def allocated(self) -> Rows:
        """The rows allocated in this transaction that are live now, ascending."""
        if not self._born:
            return np.empty(0, np.int32)
        rows = _distinct(np.concatenate(self._born), self._high_water)
        return rows[self._live.take(rows)].astype(np.int32)

    def freed(self) -> Rows:
        """The rows that were live when the transaction began and were freed in it, ascending.

        One that has been allocated again since is also in ``allocated``.
        """
        return _merged(self._died)

    # -- restoring: outside a transaction, without undo --------------------------------------------------------------

    def restore_shape(self, high_water: int) -> None:
        """Makes room for ``high_water`` rows."""
        self._grow_to(high_water)
        self._high_water = high_water

    def restore_dead(self, rows: AnyRows) -> None:
        """Marks rows dead and puts their defaults back."""
        for state in self._families.values():
            used = rows[(state.flags.take(rows) & USED).view(np.bool_)]
            self._clear(state, used)
            state.flags[used] = 0
        self._live[rows] = False

    def restore_live(self, rows: AnyRows) -> None:
        """Marks rows live."""
        self._live[rows] = True

    def restore_column(self, column: str, rows: AnyRows, values: Array) -> None:
        """Writes one column of live rows; ``restore_used`` is called once for its family."""
        where = slice(int(rows[0]), int(rows[-1]) + 1) if _consecutive(rows) else rows
        self._columns[column][where] = values

    def restore_used(self, family: str, rows: AnyRows) -> None:
        """Marks rows live, and used in a family."""
        self._live[rows] = True
        self._families[family].flags[rows] = USED

    def finish_restore(self) -> None:
        """Recounts the rows and rebuilds the index."""
        self._size = int(np.count_nonzero(self._live))
        self._hint = 0
        if self._index is not None:
            self._index.rebuild(places(self._live))

    # -- inside ------------------------------------------------------------------------------------------------------

    def _require(self, allowed: bool, call: str) -> None:
        if not allowed:
            raise RuntimeError(
                f"table {self.name}: {call} outside a transaction, or after its changes were encoded; begin() first"
            )

    def _check_live(self, rows: NDArray[np.intp]) -> None:
        live = self._live.take(rows)
        if not live.all():
            raise ValueError(f"table {self.name}: row {int(rows[~live][0])} is not allocated; allocate() it first")

    def _indexed(self) -> KeyIndex:
        if self._index is None:
            raise TypeError(f"table {self.name} has no key; give Table(key=(lo, hi)) to use add() and find()")
        return self._index

    def _family_of(self, column: str) -> str:
        return next(
            name
            for name, state in self._families.items()
            if any(candidate.name == column for candidate in state.family.columns)
        )

    def _key_arrays(self) -> tuple[U64, U64]:
        lo, hi = self._key or ("", "")
        return self._columns[lo], self._columns[hi]

    def _keys_of(self, rows: AnyRows) -> tuple[U64, U64]:
        lo, hi = self._key_arrays()
        return lo.take(rows), hi.take(rows)

    def _save(self, state: _FamilyState, rows: NDArray[np.intp]) -> None:
        """Keeps the values of those of ``rows`` (distinct) that this transaction has not saved yet."""
        flags = state.flags.take(rows)
        unsaved = (flags & _DIRTY) == 0
        if not unsaved.all():
            rows, flags = rows[unsaved], flags[unsaved]
        if not rows.size:
            return
        values = [self._columns[column.name].take(rows, axis=0) for column in state.family.columns]
        state.undo.append(_Undo(rows, flags, values))

    def _clear(self, state: _FamilyState, rows: AnyRows) -> None:
        for column in state.family.columns:
            self._columns[column.name][rows] = column.default

    def _end(self) -> None:
        for state in self._families.values():
            state.undo.clear()
        for rows in self._born:
            self._fresh[rows] = False
        self._born.clear()
        self._died.clear()
        self._open = self._writable = False

    def _allocate(self, n: int) -> Rows:
        self._require(self._writable, "allocate()")
        if self._size + n > self.limit:
            raise KeyLimitError(
                f"table {self.name}: {n} new keys do not fit, {self._size} of at most {self.limit} are in use; "
                f"raise the key limit (and the memory for it) or forget idle keys sooner"
            )
        if not n:
            return np.empty(0, np.int32)
        again = self._dead_rows(min(n, self._high_water - self._size))
        top = self._high_water + n - again.size
        rows = np.concatenate((again, np.arange(self._high_water, top, dtype=np.int32)))
        self._grow_to(top)
        self._born.append(rows)
        self._fresh[rows] = True
        self._live[rows] = True
        self._high_water = top
        self._size += n
        self._hint = int(rows[-1]) + 1
        return rows.copy()

    def _dead_rows(self, n: int) -> Rows:
        """The lowest ``n`` dead rows; there are that many below the high-water mark."""
        found: list[Rows] = [np.empty(0, np.int32)]
        at, step = self._hint, _SCAN
        while n > 0:
            chunk = places(~self._live[at : min(at + step, self._high_water)])[:n].astype(np.int32)
            found.append(chunk + np.int32(at))
            n -= chunk.size
            at, step = at + step, step * 2
        return np.concatenate(found)

    def _grow_to(self, rows: int) -> None:
        if rows <= self._capacity:
            return
        room = max(rows, min(self._capacity + (self._capacity >> 1), self.limit))
        more = room - self._capacity
        for state in self._families.values():
            state.flags = np.concatenate((state.flags, np.zeros(more, np.uint8)))
            for column in state.family.columns:
                # One column at a time, so that only one is held twice.
                grown = column.empty(room)
                grown[: self._capacity] = self._columns[column.name]
                self._columns[column.name] = grown
        self._live = np.concatenate((self._live, np.zeros(more, np.bool_)))
        self._fresh = np.concatenate((self._fresh, np.zeros(more, np.bool_)))
        self._capacity = room


def _consecutive(rows: AnyRows) -> bool:
    """Whether ascending rows follow each other without a gap."""
    return rows.size > 0 and int(rows[-1]) - int(rows[0]) + 1 == rows.size
