"""Records as JSON: the same field names, enums as strings, times as RFC 3339, money also in dollars.

One object per line is what the commands read and write. Fields that are null are left out.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import functools
import json
import math
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeAlias

from fuseboard_schemas import catalogue
from fuseboard_schemas.codec import build, class_of, describe
from fuseboard_schemas.encoding import INT_MAX, INT_MIN, LONG_MAX, LONG_MIN
from fuseboard_schemas.errors import FuseboardError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fuseboard_schemas.records import Record

RECORD_KEY = "record"
"""Optional key of a JSON object that names its record."""

MICROS = 1_000_000
YEAR_2000_US = 946_684_800 * MICROS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CLIENT_ID = re.compile(r"[0-9a-fA-F]{1,16}")
_TIME = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_SHOWN = 60
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_Writer: TypeAlias = "Callable[[Any], Any]"


class JsonFormError(FuseboardError, ValueError):
    """A JSON object that is not the record it should be; the message names place, field and expectation."""


class _Wrong(Exception):
    """A value that does not fit, before it is known whose it is."""

    def __init__(self, expected: str, hint: str = "") -> None:
        super().__init__(expected, hint)
        self.expected = expected
        self.hint = hint


def parse_line(record_name: str, line: str | bytes, *, where: str, defaults: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - the class that `record_name` names
    """The record in one line of JSON; dollars keep every digit that is written.

    Args:
        record_name: Name of the record, for example ``ToolCall``.
        line: The line.
        where: File and line for error messages, for example ``events.jsonl:12``.
        defaults: JSON values of fields that the line may leave out.

    Raises:
        JsonFormError: The line is no JSON object, or the object is not such a record.
    """
    return from_json(record_name, load_object(line, where=where), where=where, defaults=defaults)


def load_object(line: str | bytes, *, where: str) -> dict[str, Any]:
    """The JSON object in a line, with fractions as exact decimals.

    Raises:
        JsonFormError: The line is not one JSON object in UTF-8, or has a key twice.
    """
    try:
        loaded = json.loads(line, parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise JsonFormError(f"{where}: not a JSON object: {error}. Expected one object per line.") from None
    if not isinstance(loaded, dict):
        raise JsonFormError(f"{where}: expected a JSON object, not {_show(loaded)}.")
    return loaded


def from_json(
    record_name: str, obj: Mapping[str, Any], *, where: str, defaults: Mapping[str, Any] | None = None
) -> Any:  # noqa: ANN401 - the class that `record_name` names
    """The record that a JSON object describes.

    Args:
        record_name: Name of the record, for example ``ToolCall``.
        obj: The object as ``json.loads`` gives it.
        where: File and line for error messages, for example ``events.jsonl:12``.
        defaults: JSON values of fields that the object may leave out.

    Raises:
        CatalogueError: There is no such record.
        JsonFormError: A field is unknown, missing or of the wrong type.
    """
    schema = catalogue.schema(record_name)
    values = {**(defaults or {}), **obj}
    named = values.pop(RECORD_KEY, record_name)
    if named != record_name:
        raise JsonFormError(f"{where}: expected a {record_name}, but the object says it is a {_show(named)}.")
    return _Reader(schema, where, "").record(class_of(record_name), schema["fields"], values)


def to_json(record: Record) -> dict[str, Any]:
    """The JSON object of a record.

    :func:`from_json` gives the record back, if its times lie in the years 1 to 9999.
    """
    return _to_json(record, _fields_of(type(record).__name__))


def time_from_json(value: object, field: str, *, where: str) -> int:
    """A time in microseconds since 1970 from its JSON form.

    Raises:
        JsonFormError: The value is no such time.
    """
    try:
        return _time(value)
    except _Wrong as wrong:
        raise JsonFormError(_complaint(where, field, value, wrong)) from None


def format_time(micros: int) -> str | int:
    """A time as RFC 3339 in UTC with microseconds; outside the years 1 to 9999, the number itself."""
    try:
        return (_EPOCH + timedelta(microseconds=micros)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except OverflowError:
        return micros


def _to_json(record: Any, declared: tuple[tuple[str, _Writer | None], ...]) -> dict[str, Any]:  # noqa: ANN401
    obj = {}
    for name, write in declared:
        value = getattr(record, name)
        if value is not None:
            obj[name] = value if write is None else write(value)
    return obj


class _Reader:
    """Reads the fields of one object."""

    def __init__(self, schema: catalogue.Schema, where: str, path: str) -> None:
        self.types = _named_types(schema["name"])
        self.where = where
        self.path = path

    def record(self, cls: type[Any], declared: list[dict[str, Any]], obj: Mapping[str, Any]) -> Any:  # noqa: ANN401
        values: dict[str, Any] = {}
        known = {field["name"] for field in declared}
        dollars = {name.removesuffix("_micros"): name for name in known if name.endswith("_usd_micros")}
        by_name = {field["name"]: field for field in declared}
        for name, value in obj.items():
            if name in dollars:
                values[dollars[name]] = self._dollars(name, value, by_name[dollars[name]], obj)
            elif name in known:
                values[name] = self._field(by_name[name], value)
            else:
                raise JsonFormError(self._unknown(name, known | set(dollars)))
        for field in declared:
            if field["name"] not in values and "default" not in field:
                expected = describe(field["type"])
                raise JsonFormError(
                    f"{self.where}: field `{self.path}{field['name']}` is missing: expected {expected}."
                )
        return build(cls, values)

    def _unknown(self, name: str, known: set[str]) -> str:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean `{close[0]}`?" if close else f"known fields are {', '.join(sorted(known))}."
        return f"{self.where}: unknown field `{self.path}{name}`: {hint}"

    def _field(self, field: dict[str, Any], value: object) -> Any:  # noqa: ANN401 - whatever the field's type is
        try:
            if field["name"] == "client_id":
                return _client_id(value)
            return self._value(field["type"], value, field["name"])
        except _Wrong as wrong:
            raise JsonFormError(_complaint(self.where, self.path + field["name"], value, wrong)) from None

    def _dollars(self, name: str, value: object, field: dict[str, Any], obj: Mapping[str, Any]) -> int | None:
        try:
            micros = None if value is None and isinstance(field["type"], list) else _dollars(value)
        except _Wrong as wrong:
            raise JsonFormError(_complaint(self.where, self.path + name, value, wrong)) from None
        if obj.get(field["name"], micros) != micros:
            both = f"`{self.path}{name}` and `{self.path}{field['name']}`"
            raise JsonFormError(f"{self.where}: {both} are both given and differ: give one of them.")
        return micros

    def _value(self, avro: Any, value: object, name: str) -> Any:  # noqa: ANN401 - any Avro type, any value
        if isinstance(avro, list):
            return None if value is None else self._value(avro[1], value, name)
        if isinstance(avro, str) and avro in self.types:
            avro = self.types[avro]
        if isinstance(avro, dict):
            return self._complex(avro, value, name)
        return _PRIMITIVES[avro](value)

    def _complex(self, avro: dict[str, Any], value: object, name: str) -> Any:  # noqa: ANN401 - any value
        if avro["type"] == "enum":
            if not isinstance(value, str) or value not in avro["symbols"]:
                close = difflib.get_close_matches(str(value).upper(), avro["symbols"], 1)
                raise _Wrong(describe(avro), f"Did you mean {close[0]}?" if close else "")
            return value
        if avro["type"] == "array":
            if not isinstance(value, list | tuple):
                raise _Wrong("a list")
            return tuple(self._value(avro["items"], item, f"{name}[{i}]") for i, item in enumerate(value))
        if avro["type"] == "record":
            if not isinstance(value, dict):
                raise _Wrong("an object")
            inner = _Reader.__new__(_Reader)
            inner.types, inner.where, inner.path = self.types, self.where, f"{self.path}{name}."
            return inner.record(class_of(avro["name"]), avro["fields"], value)
        return _time(value) if avro.get("logicalType") == "timestamp-micros" else _PRIMITIVES[avro["type"]](value)


def _complaint(where: str, field: str, value: object, wrong: _Wrong) -> str:
    hint = f" {wrong.hint}" if wrong.hint else ""
    return f"{where}: field `{field}`: expected {wrong.expected}, got {_show(value)}.{hint}"


def _show(value: object) -> str:
    text = str(value) if isinstance(value, Decimal) else json.dumps(value, default=str, ensure_ascii=False)
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise _Wrong("a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Wrong("a string of valid Unicode", "It has half of a surrogate pair.") from None
    return value


def _integer(low: int, high: int, bits: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _Wrong(f"an integer of {bits} bits")
        return value

    return read


def _double(value: object) -> float:
    if isinstance(value, str) and value in _NOT_FINITE.values():
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise _Wrong("a number")
    try:
        return float(value)
    except OverflowError:
        raise _Wrong("a number that fits a double") from None


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("true or false")
    return value


def _bytes(value: object) -> bytes:
    try:
        return base64.b64decode(value if isinstance(value, str) else "", validate=True) if value != "" else b""
    except (binascii.Error, ValueError):
        raise _Wrong("bytes in base64") from None


def _client_id(value: object) -> int:
    if isinstance(value, str) and _CLIENT_ID.fullmatch(value):
        bits = int(value, 16)
        return bits - (1 << 64) if bits > LONG_MAX else bits
    if isinstance(value, int) and not isinstance(value, bool) and LONG_MIN <= value <= LONG_MAX:
        return value
    raise _Wrong("1 to 16 hexadecimal digits in quotes, or an integer of 64 bits")


def _dollars(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise _Wrong("dollars as a number")
    try:
        dollars = Decimal(repr(value) if isinstance(value, float) else value)
        # Scaling only moves the exponent: exact, whatever the context's precision is.
        sign, digits, exponent = dollars.as_tuple()
        micros = Decimal((sign, digits, int(exponent) + 6))
        whole = int(micros) if abs(micros.adjusted()) < 40 else 0
    except (InvalidOperation, ValueError, OverflowError):
        raise _Wrong("dollars as a number") from None
    if micros != whole:
        raise _Wrong("dollars with at most 6 decimal places", "Amounts are kept in whole micro-dollars.")
    if not LONG_MIN <= whole <= LONG_MAX:
        raise _Wrong("dollars that fit 64 bits of micro-dollars")
    return whole


def _time(value: object) -> int:
    expected = "a time as RFC 3339 (2026-01-31T12:00:00.250Z) or as integer microseconds since 1970"
    if isinstance(value, str):
        return _rfc3339(value, expected)
    if isinstance(value, bool) or not isinstance(value, int) or not LONG_MIN <= value <= LONG_MAX:
        raise _Wrong(expected)
    if value < YEAR_2000_US:
        unit = _likely_unit(value)
        hint = (
            f"It looks like {unit}; multiply it by {'1,000' if unit == 'milliseconds' else '1,000,000'}."
            if unit
            else ""
        )
        raise _Wrong(expected + ", not before 2000", f"{hint} The unit is never guessed.".strip())
    return value


def _likely_unit(value: int) -> str | None:
    if YEAR_2000_US <= value * 1_000 < YEAR_2000_US * 5:
        return "milliseconds"
    return "seconds" if YEAR_2000_US <= value * MICROS < YEAR_2000_US * 5 else None


def _rfc3339(text: str, expected: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        zone = "It has no time zone; append Z for UTC." if _TIME.fullmatch(text + "Z") else ""
        raise _Wrong(expected, zone)
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        leap = second == 60
        at = datetime(year, month, day, hour, minute, 59 if leap else second, tzinfo=UTC)
    except ValueError as error:
        raise _Wrong(expected, f"{str(error).capitalize()}.") from None
    micros = (at - _EPOCH) // timedelta(microseconds=1) + (MICROS if leap else 0)
    offset = match.group(8)
    if offset not in "Zz":
        minutes = int(offset[1:3]) * 60 + int(offset[4:6])
        micros -= minutes * 60 * MICROS * (1 if offset[0] == "+" else -1)
    return micros + int((match.group(7) or "").ljust(6, "0")[:6])


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    obj = dict(pairs)
    if len(obj) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} is given twice")
    return obj


_PRIMITIVES: dict[str, Callable[[object], Any]] = {
    "string": _string,
    "long": _integer(LONG_MIN, LONG_MAX, 64),
    "int": _integer(INT_MIN, INT_MAX, 32),
    "double": _double,
    "boolean": _boolean,
    "bytes": _bytes,
}


@functools.cache
def _named_types(record_name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}

    def walk(avro: object) -> None:
        if isinstance(avro, list):
            for item in avro:
                walk(item)
        elif isinstance(avro, dict):
            if "name" in avro and avro.get("type") in ("enum", "record"):
                found[avro["name"]] = avro
            for key in ("type", "items", "fields"):
                walk(avro.get(key))

    walk(catalogue.schema(record_name))
    return found


@functools.cache
def _fields_of(record_name: str) -> tuple[tuple[str, _Writer | None], ...]:
    schema = catalogue.schema(record_name)
    return _writers_of(schema["fields"], _named_types(record_name))


def _writers_of(
    declared: list[dict[str, Any]], types: dict[str, dict[str, Any]]
) -> tuple[tuple[str, _Writer | None], ...]:
    found: list[tuple[str, _Writer | None]] = []
    for field in declared:
        write = _client_id_to_json if field["name"] == "client_id" else _writer(field["type"], types)
        found.append((field["name"], write))
    return tuple(found)


def _writer(avro: Any, types: dict[str, dict[str, Any]]) -> _Writer | None:  # noqa: ANN401 - any Avro type
    if isinstance(avro, list):
        return _writer(avro[1], types)
    if isinstance(avro, str) and avro not in types:
        return _bytes_to_json if avro == "bytes" else _double_to_json if avro == "double" else None
    if isinstance(avro, str):
        avro = types[avro]
    if avro["type"] == "enum":
        return str
    if avro["type"] == "array":
        item = _writer(avro["items"], types) or _same
        return lambda values: [item(value) for value in values]
    if avro["type"] == "record":
        inner = _writers_of(avro["fields"], types)
        return functools.partial(_to_json, declared=inner)
    if avro.get("logicalType") == "timestamp-micros":
        return format_time
    return _writer(avro["type"], types)


def _same(value: object) -> object:
    return value


def _client_id_to_json(value: int) -> str:
    return f"{value & (1 << 64) - 1:016x}"


def _bytes_to_json(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _double_to_json(value: float) -> float | str:
    return value if math.isfinite(value) else _NOT_FINITE[str(value)]
