"""Which records of a topic to show: where to start, and what they must look like."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from fuseboard_schemas.errors import ConfigurationError
from fuseboard_schemas.topics import TOPICS, Topic, TopicNames, by_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_streams.cli.kafka import Partition


@dataclass(frozen=True, slots=True)
class Start:
    """Where to start reading: the beginning, the end, an offset, the last N records, or a time (µs)."""

    kind: Literal["beginning", "end", "offset", "last", "time"]
    value: int = 0

    def offset(self, partition: Partition) -> int:
        """Return the offset to start a partition at, cut to what it has; times are looked up by the caller."""
        if self.kind == "beginning":
            return partition.low
        if self.kind == "offset":
            return min(max(self.value, partition.low), partition.high)
        if self.kind == "last":
            return max(partition.low, partition.high - self.value)
        return partition.high


def parse_start(text: str) -> Start:
    """Return what ``--from`` means.

    Raises:
        ConfigurationError: It means nothing.
    """
    word = text.strip()
    if word in ("beginning", "end"):
        return Start(word)  # type: ignore[arg-type]  # the two words above
    if word.removeprefix("-").isdecimal():
        return Start("last", -int(word)) if word.startswith("-") else Start("offset", int(word))
    try:
        moment = datetime.fromisoformat(word)
    except ValueError:
        raise ConfigurationError(
            f"--from {text!r}: expected beginning, end, an offset (1042), the last N records of each partition (-20), "
            "or a time such as 2026-11-23T04:00:00Z."
        ) from None
    if moment.tzinfo is None:
        raise ConfigurationError(
            f"--from {text!r}: the time has no zone. Write 2026-11-23T04:00:00Z for UTC, or an offset like +01:00."
        )
    gap = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return Start("time", (gap.days * 86_400 + gap.seconds) * 1_000_000 + gap.microseconds)


@dataclass(frozen=True, slots=True)
class Condition:
    """One test on one field; ``*`` and ``?`` in the pattern match as in file names."""

    field: str
    pattern: str
    wanted: bool = True

    def holds(self, record: Any) -> bool:  # noqa: ANN401 - any of our records
        """Return whether a record passes."""
        texts = field_texts(self.field, getattr(record, self.field))
        return any(fnmatchcase(text, self.pattern) for text in texts) is self.wanted


def field_texts(name: str, value: object) -> Sequence[str]:
    """Return how a field's value may be written in a condition: as in its JSON form, a client id also as a number."""
    if value is None:
        return ("null",)
    if isinstance(value, bool):
        return ("true" if value else "false",)
    if name == "client_id" and isinstance(value, int):
        return (f"{value & 0xFFFF_FFFF_FFFF_FFFF:016x}", str(value))
    return (str(value),)


def parse_conditions(record: type, where: Sequence[str], **exact: str | None) -> list[Condition]:
    """Return the conditions of ``--where field=value`` and of the named filters.

    Args:
        record: The record class of the topic.
        where: ``field=pattern`` or ``field!=pattern``.
        exact: Field name to pattern; ``None`` where the option was not given.

    Raises:
        ConfigurationError: A condition is malformed, the record has no such field, or the field never has such a
            value.
    """
    conditions = [Condition(name, value) for name, value in exact.items() if value is not None]
    for text in where:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigurationError(
                f"--where {text!r}: expected field=value or field!=value, e.g. --where outcome=ERROR. The value may "
                "have * and ?, and null stands for an empty field."
            )
        conditions.append(Condition(name.removesuffix("!").strip(), value, wanted=not name.endswith("!")))
    fields = [field.name for field in dataclasses.fields(record)]
    types_of = typing.get_type_hints(record)
    for condition in conditions:
        if condition.field not in fields:
            close = difflib.get_close_matches(condition.field, fields, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(
                f"{record.__name__} has no field {condition.field!r} to filter by.{hint} Its fields: "
                f"{', '.join(fields)}."
            )
        _check_value(condition, types_of[condition.field])
    return conditions


def _check_value(condition: Condition, kind: Any) -> None:  # noqa: ANN401 - a type or a union
    """Refuse a pattern that no value of a field can match: it would show nothing, or everything, without a word.

    Raises:
        ConfigurationError: There is none.
    """
    parts = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    empty = ("null",) if types.NoneType in parts else ()
    (plain, *others) = [part for part in parts if part is not types.NoneType]
    values = _values(plain)
    if others or values is None or any(fnmatchcase(text, condition.pattern) for text in (*values, *empty)):
        return
    name, pattern = condition.field, condition.pattern
    if not values and _could_be_number(name, pattern):
        return
    sign = "=" if condition.wanted else "!="
    close = [text for text in values if text.casefold() == pattern.casefold()]
    hint = f" Did you mean {name}{sign}{close[0]}?" if close else ""
    expected = f"one of {', '.join((*values, *empty))}" if values else "a number"
    raise ConfigurationError(
        f"--where {name}{sign}{pattern}: {name} is {expected}; a pattern may have * and ? as in file names.{hint}"
    )


def _values(kind: object) -> tuple[str, ...] | None:
    """Return all that a field of a type can be; nothing for numbers, which are too many; ``None`` for any text."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return tuple(str(each.value) for each in kind)
    if kind is bool:
        return ("true", "false")
    return () if kind in (int, float) else None


def _could_be_number(name: str, pattern: str) -> bool:
    """Return whether a pattern can match a number as text; a client's id is shown in hexadecimal."""
    if name == "client_id" or any(char in pattern for char in "*?["):
        return True
    try:
        float(pattern)
    except ValueError:
        return False
    return True


def find_topic(name: str, prefix: str) -> Topic:
    """Return the declaration of a topic by its short or full name.

    Raises:
        ConfigurationError: It is none of ours.
    """
    topic = by_name(name.replace("_", "-")) or TopicNames(prefix).find(name)
    if topic is None:
        names = [topic.name for topic in TOPICS]
        close = difflib.get_close_matches(name.removeprefix(prefix).replace("_", "-"), names, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigurationError(
            f"{name!r} is none of Fuseboard's topics under the prefix {prefix!r}.{hint} They are: {', '.join(names)}."
        )
    return topic
