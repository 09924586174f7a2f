"""How the records of one writer's schema are read as columns, and turned into those of the current schema."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from fuseboard_schemas import catalogue, wire
from fuseboard_schemas.codec import without_logical_types
from fuseboard_schemas.encoding import long
from fuseboard_schemas.screening import PADDING, Step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuseboard_schemas.registry import Writer

SYNC = b"fuseboard-column"
assert len(SYNC) == PADDING
"""Ends a block. Its value means nothing: the screen has proved where every record ends."""

_WIRE = "_wire"
_MOST_SYMBOLS = 64
_DTYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "bytes": pl.Binary(),
    "long": pl.Int64(),
    "int": pl.Int32(),
    "double": pl.Float64(),
    "boolean": pl.Boolean(),
    "enum": pl.UInt8(),
}
_STEPS = {
    "string": "text",
    "bytes": "bytes",
    "long": "varint",
    "int": "varint",
    "double": "double",
    "boolean": "boolean",
}
_PROMOTIONS = {("int", "long"), ("int", "double"), ("long", "double")}


class NotFlatError(ValueError):
    """A schema with arrays, nested records or other unions than null and one type: it has no columns."""


@dataclass(frozen=True, slots=True)
class Column:
    """One flat field."""

    name: str
    kind: str
    """``string``, ``bytes``, ``long``, ``int``, ``double``, ``boolean`` or ``enum``."""
    nullable: bool
    symbols: tuple[str, ...] = ()
    unknown: str | None = None
    """The enum's default symbol."""
    default: Any = None
    has_default: bool = False

    @property
    def dtype(self) -> pl.DataType:
        """The type of the column in a decoded frame."""
        return _DTYPES[self.kind]


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything needed to read a block of one writer's records."""

    header: bytes
    """The five bytes that all records begin with."""
    steps: tuple[Step, ...]
    """The fields for the screen."""
    names: list[str]
    """The writer's fields."""
    ints: tuple[str, ...]
    """Those that must fit in 32 bits, read as 64."""
    aligned: dict[str, pl.Expr]
    """The current schema's columns in terms of the writer's."""
    texts: tuple[str, ...]
    """Those that must be valid UTF-8."""
    _container: bytes
    _container_without_text: bytes

    def container(self, records: int, size: int, *, text: bool = True) -> bytes:
        """What comes before the records in a container file with one block.

        Args:
            records: Number of records in the block.
            size: Their length in bytes, headers included.
            text: Whether strings are to be read as such; else as bytes, to find those that are not valid.
        """
        return (self._container if text else self._container_without_text) + long(records) + long(size)


@functools.cache
def columns(record: str) -> tuple[Column, ...]:
    """The columns of a record's current schema.

    Raises:
        CatalogueError: There is no such record.
        NotFlatError: The record has arrays or nested records.
    """
    return _columns(catalogue.schema(record))


@functools.lru_cache(maxsize=256)
def layout_of(writer: Writer, record: str) -> Layout | None:
    """How to read a writer's records as columns of a record, or None if only a reader of single records can.

    Raises:
        NotFlatError: The record has arrays or nested records.
    """
    wanted = columns(record)
    try:
        written = {column.name: column for column in _columns(writer.schema)}
    except NotFlatError:
        return None
    aligned = {column.name: _align(column, written.get(column.name)) for column in wanted}
    if any(expression is None for expression in aligned.values()):
        return None
    return Layout(
        header=wire.header(writer.schema_id),
        steps=tuple(_step(column) for column in written.values()),
        names=list(written),
        ints=tuple(column.name for column in written.values() if column.kind == "int"),
        aligned={name: expression for name, expression in aligned.items() if expression is not None},
        texts=tuple(column.name for column in written.values() if column.kind == "string"),
        _container=_container(written.values(), "string"),
        _container_without_text=_container(written.values(), "bytes"),
    )


def _columns(avro: catalogue.Schema) -> tuple[Column, ...]:
    named: dict[str, Any] = {}
    found = []
    for field in without_logical_types(avro)["fields"]:
        kind, nullable = field["type"], False
        if isinstance(kind, list):
            if len(kind) != 2 or kind[0] != "null":
                raise NotFlatError(f"{avro['name']}.{field['name']} is not a union of null and one type")
            kind, nullable = kind[1], True
        kind = named.get(kind, kind) if isinstance(kind, str) else kind
        symbols: tuple[str, ...] = ()
        unknown = None
        if isinstance(kind, dict):
            if kind["type"] != "enum" or len(kind["symbols"]) > _MOST_SYMBOLS:
                raise NotFlatError(f"{avro['name']}.{field['name']} has no column")
            named[kind["name"]] = kind
            symbols, unknown, kind = tuple(kind["symbols"]), kind.get("default"), "enum"
        if kind not in _DTYPES:
            raise NotFlatError(f"{avro['name']}.{field['name']} has no column")
        column = Column(field["name"], kind, nullable, symbols, unknown, field.get("default"), "default" in field)
        found.append(column)
    return tuple(found)


def _step(column: Column) -> Step:
    return Step(_STEPS.get(column.kind, column.kind), column.nullable, len(column.symbols))


def _container(written: Iterable[Column], text: str) -> bytes:
    """The header of a container file whose records are ours with their wire headers.

    Types are declared as what keeps all of their information: enums as longs (an index beyond the symbols would make
    the reader panic), ints as longs (it would cut them), booleans as longs (it would take 2 for false).
    """
    fields: list[dict[str, Any]] = [
        {"name": _WIRE, "type": {"type": "fixed", "name": "Wire", "size": wire.HEADER_LENGTH}}
    ]
    for column in written:
        kind = {"string": text, "bytes": "bytes", "double": "double"}.get(column.kind, "long")
        fields.append({"name": column.name, "type": ["null", kind] if column.nullable else kind})
    schema = json.dumps({"type": "record", "name": "Row", "fields": fields}).encode()
    entries = [(b"avro.schema", schema), (b"avro.codec", b"null")]
    metadata = b"".join(long(len(key)) + key + long(len(value)) + value for key, value in entries)
    return b"Obj\x01" + long(len(entries)) + metadata + long(0) + SYNC


def _align(wanted: Column, written: Column | None) -> pl.Expr | None:
    """The wanted column in terms of the written one, or None if single records must be resolved instead."""
    if written is None:
        return _default(wanted)
    if written.nullable and not wanted.nullable:
        return None
    column = pl.col(wanted.name)
    if wanted.kind == "enum":
        return _align_enum(wanted, written, column)
    if written.kind != wanted.kind and (written.kind, wanted.kind) not in _PROMOTIONS:
        return None
    if wanted.kind == "boolean":
        return column != 0
    return column.cast(wanted.dtype) if wanted.kind in ("int", "double") else column


def _align_enum(wanted: Column, written: Column, column: pl.Expr) -> pl.Expr | None:
    if written.kind != "enum":
        return None
    if written.symbols == wanted.symbols[: len(written.symbols)]:
        return column.cast(pl.UInt8)
    codes = [_code(wanted, symbol) for symbol in written.symbols]
    if None in codes:
        return None
    return column.replace_strict(list(range(len(codes))), codes, return_dtype=pl.UInt8)


def _code(column: Column, symbol: str | None) -> int | None:
    if symbol in column.symbols:
        return column.symbols.index(symbol)
    return None if column.unknown is None else column.symbols.index(column.unknown)


def _default(column: Column) -> pl.Expr | None:
    if not column.has_default:
        return None
    value = column.default
    if column.kind == "enum" and value is not None:
        value = column.symbols.index(value)
    if column.kind == "bytes" and value is not None:
        value = value.encode("latin-1")
    return pl.lit(value, dtype=column.dtype).alias(column.name)
