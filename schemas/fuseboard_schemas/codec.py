"""Single records to bytes and back; the worker's columns are in :mod:`fuseboard_schemas.columnar`."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from fuseboard_schemas import catalogue, records, wire
from fuseboard_schemas.encoding import ENCODING_ERRORS, INT_MAX, INT_MIN, compile_encoder
from fuseboard_schemas.errors import FuseboardError
from fuseboard_schemas.records.enums import DeadLetterReason
from fuseboard_schemas.registry import PackagedResolver, Resolver, Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_schemas.catalogue import Schema
    from fuseboard_schemas.records import Record


_WORDS = {"long": "an integer of 64 bits", "int": "an integer of 32 bits", "double": "a number", "string": "a string"}


class EncodeError(FuseboardError, ValueError):
    """A record that does not fit its schema; the message names the field."""


class DecodeError(FuseboardError, ValueError):
    """Bytes that are not the expected record.

    Attributes:
        reason: What a dead letter about these bytes should say.
        detail: What was wrong, in one line.
    """

    def __init__(self, reason: DeadLetterReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Encoder:
    """Writes records of one kind in the wire format. Thread-safe."""

    def __init__(self, record_name: str, schema_id: int | None = None) -> None:
        """Prepare for a record.

        Args:
            record_name: Name of the record, for example ``ToolCall``.
            schema_id: Id under which a registry knows the current schema; by default the packaged id.

        Raises:
            CatalogueError: There is no such record.
        """
        self._class = class_of(record_name)
        self.record_name = record_name
        self.schema_id = catalogue.packaged_id(record_name) if schema_id is None else schema_id
        self._header = wire.header(self.schema_id)
        self._encode = _compiled(record_name)

    def encode(self, record: Record | Mapping[str, Any]) -> bytes:
        """The header and the Avro body of a record.

        Args:
            record: The record, or a mapping of its field names to values; fields with a default may be left out.

        Raises:
            EncodeError: It is another record, or a field has a value of the wrong type or size.
        """
        if isinstance(record, Mapping):
            record = self._from_mapping(record)
        elif type(record) is not self._class:
            raise EncodeError(f"This encoder writes {self.record_name} records, not {type(record).__name__}.")
        out = bytearray(self._header)
        try:
            self._encode(out, record)
        except ENCODING_ERRORS as error:
            raise EncodeError(self._explain(record, error)) from error
        return bytes(out)

    def _from_mapping(self, values: Mapping[str, Any]) -> Record:
        try:
            return cast("Record", build(self._class, values))
        except (TypeError, ValueError) as error:
            raise EncodeError(f"These values make no {self.record_name}: {error}.") from error

    def _explain(self, record: Record, error: Exception) -> str:
        schema = catalogue.schema(self.record_name)
        for field in schema["fields"]:
            try:
                _compiled_field(self.record_name, field["name"])(bytearray(), record)
            except ENCODING_ERRORS:
                value = getattr(record, field["name"], None)
                return (
                    f"{self.record_name}.{field['name']} cannot be {value!r:.80}: expected {describe(field['type'])}."
                )
        return f"{self.record_name} cannot be encoded: {error}."


class Decoder:
    """Reads single records in the wire format, strictly. Thread-safe."""

    def __init__(self, resolver: Resolver | None = None) -> None:
        self._resolver = PackagedResolver() if resolver is None else resolver

    def prepare(self, *record_names: str) -> None:
        """Load now what the first record of each kind would have to wait for, which is a tenth of a second."""
        for name in record_names:
            writer = self._resolver.resolve(catalogue.packaged_id(name))
            if writer is not None:
                reading_plan(writer, name)
            _converters(class_of(name))

    def decode(self, value: bytes | None, expect: str) -> Any:  # noqa: ANN401 - the class that `expect` names
        """The record in a value.

        Args:
            value: A Kafka message's value.
            expect: Name of the record it should be.

        Returns:
            An instance of the class of that name in :mod:`fuseboard_schemas.records`.

        Raises:
            DecodeError: The bytes are not such a record.
            UnreachableError: The schema registry could not be asked about the schema.
        """
        return build(class_of(expect), decode_fields(value, expect, self._resolver))


def decode_fields(value: bytes | None, expect: str, resolver: Resolver) -> dict[str, Any]:
    """The fields of the record in a value, in terms of the current schema: times as integers, enums as strings.

    The verdict is fastavro's, and every byte must be used; besides, an int must fit in 32 bits.

    Raises:
        DecodeError: The bytes are not such a record.
        UnreachableError: The schema registry could not be asked about the schema.
    """
    if value is None:
        raise DecodeError(DeadLetterReason.TOMBSTONE, "The record has no value.")
    try:
        schema_id = wire.schema_id(value)
    except wire.WireFormatError as error:
        raise DecodeError(DeadLetterReason.NOT_WIRE_FORMAT, str(error)) from None
    writer = writer_of(schema_id, expect, resolver)
    return read_body(value, reading_plan(writer, expect), expect)


def writer_of(schema_id: int, expect: str, resolver: Resolver) -> Writer:
    """The writer behind a schema id, if it writes the expected record.

    Raises:
        DecodeError: Nobody knows the id, or it stands for another record.
        UnreachableError: The schema registry could not be asked.
    """
    writer = resolver.resolve(schema_id)
    if writer is None:
        raise DecodeError(
            DeadLetterReason.UNKNOWN_SCHEMA, f"Nobody knows the schema id {schema_id} (0x{schema_id:08x})."
        )
    if writer.record != expect:
        raise DecodeError(
            DeadLetterReason.WRONG_RECORD, f"Expected {expect}; schema id {schema_id} is {writer.record}."
        )
    return writer


def read_body(value: bytes, plan: tuple[Schema, Schema | None], expect: str) -> dict[str, Any]:
    """Decode what follows the header with a plan from :func:`reading_plan`.

    Raises:
        DecodeError: The bytes are no such record.
    """
    from fastavro import schemaless_reader

    stream = io.BytesIO(value)
    stream.seek(wire.HEADER_LENGTH)
    try:
        fields = schemaless_reader(stream, plan[0], plan[1])
    except Exception as error:
        raise DecodeError(DeadLetterReason.UNDECODABLE, f"No {expect}: {type(error).__name__}: {error}.") from None
    unread = len(value) - stream.tell()
    if unread:
        raise DecodeError(DeadLetterReason.UNDECODABLE, f"{unread} bytes are left over after the {expect}.")
    decoded = cast("dict[str, Any]", fields)
    for name in _int_fields(expect):
        if decoded[name] is not None and not INT_MIN <= decoded[name] <= INT_MAX:
            detail = f"{expect}.{name} is {decoded[name]}, which does not fit in 32 bits."
            raise DecodeError(DeadLetterReason.INVALID_FIELD, detail)
    return decoded


@functools.lru_cache(maxsize=256)
def reading_plan(writer: Writer, expect: str) -> tuple[Schema, Schema | None]:
    """Parsed schemas for fastavro: the writer's, and the reader's if it is another one; both without logical types."""
    from fastavro import parse_schema

    current = catalogue.schema(expect)
    written = cast("Schema", parse_schema(without_logical_types(writer.schema)))
    if writer.fingerprint == catalogue.fingerprint(current):
        return written, None
    return written, cast("Schema", parse_schema(without_logical_types(current)))


def without_logical_types(avro: object) -> Any:  # noqa: ANN401 - the same kind of thing as the argument
    """A schema whose times are plain integers."""
    if isinstance(avro, dict):
        plain = {key: without_logical_types(item) for key, item in avro.items() if key not in ("logicalType", "doc")}
        return plain["type"] if set(plain) == {"type"} and isinstance(plain["type"], str) else plain
    if isinstance(avro, list):
        return [without_logical_types(item) for item in avro]
    return avro


def build(cls: type[Any], values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - an instance of cls
    """An instance of a record class from plain values: enums as strings, nested records as mappings, arrays as lists.

    Raises:
        TypeError: A field is missing, or there is no such field.
        ValueError: An enum has no such symbol.
    """
    converted = dict(values)
    for name, convert in _converters(cls).items():
        if name in converted:
            converted[name] = convert(converted[name])
    return cls(**converted)


def describe(avro: object) -> str:
    """An Avro type in words, for error messages."""
    if isinstance(avro, list):
        return f"{describe(avro[1])} or null"
    if isinstance(avro, dict):
        if avro["type"] == "enum":
            return "one of " + ", ".join(avro["symbols"])
        if avro["type"] == "array":
            return f"a list of {describe(avro['items'])}"
        if avro.get("logicalType") == "timestamp-micros":
            return "a time"
        return str(avro.get("name", avro["type"]))
    words = {
        "long": "an integer of 64 bits",
        "int": "an integer of 32 bits",
        "double": "a number",
        "string": "a string",
    }
    return words.get(str(avro), str(avro))


def class_of(record_name: str) -> type[Any]:
    """The class of a record, or of a record nested in one.

    Raises:
        CatalogueError: There is no such record.
    """
    if record_name not in records.__all__:
        catalogue.schema(record_name)
    cls: type[Any] = getattr(records, record_name)
    return cls


@functools.cache
def _compiled(record_name: str) -> Callable[[bytearray, Any], None]:
    return compile_encoder(catalogue.schema(record_name))


@functools.cache
def _compiled_field(record_name: str, field_name: str) -> Callable[[bytearray, Any], None]:
    """An encoder of a single field, to find out which one does not fit."""
    return compile_encoder(catalogue.schema(record_name), only=field_name)


@functools.cache
def _int_fields(record_name: str) -> tuple[str, ...]:
    fields = catalogue.schema(record_name)["fields"]
    return tuple(field["name"] for field in fields if field["type"] in ("int", ["null", "int"]))


def _converters(cls: type[Any]) -> dict[str, Callable[[Any], Any]]:
    found = _CONVERTERS.get(cls)
    if found is None:
        found = _CONVERTERS[cls] = _find_converters(cls)
    return found


_CONVERTERS: dict[type[Any], dict[str, Callable[[Any], Any]]] = {}


def _find_converters(cls: type[Any]) -> dict[str, Callable[[Any], Any]]:
    found: dict[str, Callable[[Any], Any]] = {}
    for name, annotation in cls.__annotations__.items():
        if isinstance(annotation, type) and issubclass(annotation, StrEnum):
            found[name] = annotation
        elif getattr(annotation, "__origin__", None) is tuple:
            item = annotation.__args__[0]
            found[name] = functools.partial(_tuple_of, item) if hasattr(item, "__dataclass_fields__") else tuple
    return found


def _tuple_of(cls: type[Any], values: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a list of mappings
    return tuple(build(cls, value) if isinstance(value, Mapping) else value for value in values)
