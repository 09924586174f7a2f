"""From the lines of a JSONL file to Kafka messages: identity, time shift, partition. Pure: no I/O, no clock."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from fuseboard.envelope import TOPIC_OF, Enveloper, headers
from fuseboard.guest import to_message
from fuseboard.transport import Message
from fuseboard_schemas import catalogue
from fuseboard_schemas.codec import EncodeError, Encoder
from fuseboard_schemas.errors import ConfigurationError
from fuseboard_schemas.jsonform import JsonFormError, from_json
from fuseboard_schemas.keys import (
    KeyFormatError,
    actor_key,
    breaker_id,
    home_partition,
    parse_breaker_id,
    partition_for,
)
from fuseboard_schemas.records import EnforcementAck, Override, Signal
from fuseboard_schemas.rules import check_identity
from fuseboard_schemas.topics import Topic, TopicNames, by_name, for_record
from fuseboard_streams.records_io import Line, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PUBLISHABLE: Final = (*(kind.__name__ for kind in TOPIC_OF), "Signal", "Override")
"""Records that anyone may publish; the others are written by workers only."""

_TYPE_PREFIX: Final = f"{catalogue.NAMESPACE}."
_ID_FIELDS: Final = {"Signal": "signal_id", "Override": "override_id", "EnforcementAck": None}
_FIELD: Final = re.compile(r"field `([^`]+)`")
_PARTS_OF_TARGET: Final = {
    "ACTOR": ("actor",),
    "ACTOR_TOOL": ("actor", "tool"),
    "TOOL": ("tool",),
    "SESSION": ("actor", "trace_id"),
}
"""What names the target of a breaker besides its tenant, by scope."""
_TAPPED_WITHOUT_RECORD: Final = frozenset({"tombstone", "undecodable"})
_OURS: Final = ("record", "type", "kafka")
"""Fields of a line that are not the record's: its kind (either name), and where ``tap`` found it."""


def find_record(name: str) -> str:
    """Return the record that a name means: ``ToolCall``, ``tool-calls`` or ``fuseboard.v1.ToolCall``.

    Raises:
        ConfigurationError: There is no such record, or only workers may write it.
    """
    topic = by_name(name.replace("_", "-"))
    record = topic.record if topic is not None else name.removeprefix(_TYPE_PREFIX)
    if record in PUBLISHABLE:
        return record
    if record in catalogue.record_names():
        raise ConfigurationError(f"{record} is written by workers only. What can be published: {_choices()}.")
    names = {each.casefold(): each for kind in PUBLISHABLE for each in (for_record(kind).name, kind)}
    close = difflib.get_close_matches(name.casefold().replace("_", "-"), names, 1)
    hint = f" Did you mean {names[close[0]]}?" if close else ""
    raise ConfigurationError(f"{name!r} is no record.{hint} What can be published: {_choices()}.")


def _choices() -> str:
    """Return the topics of the publishable records, for messages."""
    return ", ".join(for_record(name).name for name in PUBLISHABLE)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A record that is ready to be sent, and the line it came from."""

    line: Line
    record: Any
    topic: Topic
    file_ts: int
    """The event time in the file, before any shift: what the pace goes by."""


class Assembler:
    """Makes records of lines: finds their kind, gives them an identity, shifts their time.

    Args:
        source: The file's name, for messages.
        record: The kind of every line; ``None`` reads it from the field ``record`` or ``type`` of each.
        client_id: Identity of this run, 64 random bits, signed.
        keep_ids: Leave client ids and sequence numbers as they are in the file.
    """

    def __init__(self, source: str, record: str | None, client_id: int, *, keep_ids: bool = False) -> None:
        self._source = source
        self._record = record
        self._client_id = client_id
        self._keep_ids = keep_ids
        self._seqs: dict[tuple[str, str, str], int] = {}

    def prepare(self, line: Line, shift: Callable[[int], int] | None = None) -> Prepared | Problem:
        """Return the record of a line, or what is wrong with it.

        Args:
            line: What was read.
            shift: The event time to use instead of the one in the file (both µs since the epoch);
                ``None`` keeps it.
        """
        where = f"{self._source}:{line.number}"
        if "kafka" in line.value and not _TAPPED_WITHOUT_RECORD.isdisjoint(line.value):
            text = "`tap` found no readable record there, so that there is none to send; expected a record."
            return Problem(self._source, line.number, None, text)
        try:
            name = self._kind(line.value)
            fields = {field: value for field, value in line.value.items() if field not in _OURS}
            original = from_json(name, fields, where=where, defaults=self._identity(name, line.number))
        except ConfigurationError as error:
            return Problem(self._source, line.number, "record", str(error))
        except JsonFormError as error:
            text = str(error).removeprefix(f"{where}: ")
            named = _FIELD.search(text)
            return Problem(self._source, line.number, named[1] if named else None, text)
        unusable = _unusable_name(original) or _unusable_target(original)
        if unusable is not None:
            return Problem(self._source, line.number, *unusable)
        changes = {} if shift is None else {"ts": shift(original.ts)}
        if not self._keep_ids:
            changes |= {"client_id": self._client_id, "seq": self._next_seq(original, name)}
        record = dataclasses.replace(original, **changes) if changes else original
        return Prepared(line, record, for_record(name), original.ts)

    def _kind(self, value: Mapping[str, Any]) -> str:
        """Return the kind of record on a line."""
        given = value.get("record", value.get("type"))
        if given is None:
            if self._record is None:
                raise ConfigurationError(
                    'field `record` is missing: expected what the line is, e.g. "record": "tool-calls", or --record '
                    f"for all lines. What can be published: {_choices()}."
                )
            return self._record
        name = find_record(str(given))
        if self._record is not None and name != self._record:
            asked, found = for_record(self._record).name, for_record(name).name
            raise ConfigurationError(f"field `record`: expected {asked}, as --record says, got {found}.")
        return name

    def _identity(self, record: str, number: int) -> dict[str, str]:
        """Return an id for a record that has none: unique because the client is, one per line and run."""
        field = _ID_FIELDS.get(record, "event_id")
        return {field: f"{self._client_id & 0xFFFF_FFFF_FFFF_FFFF:016x}-{number}"} if field else {}

    def _next_seq(self, record: Any, name: str) -> int:  # noqa: ANN401 - any publishable record
        """Return the next sequence number of a record's actor, or of all records about targets."""
        # What is about a target is counted per client: it belongs to no actor's numbers, and a number that comes twice
        # in a partition would be dropped as a repeat.
        if isinstance(record, EnforcementAck | Signal | Override):
            counter: tuple[str, str, str] = ("", "", name)
        else:
            counter = (record.tenant, record.actor, name)
        seq = self._seqs.get(counter, -1) + 1
        self._seqs[counter] = seq
        return seq


def _unusable_name(record: Any) -> tuple[str, str] | None:  # noqa: ANN401 - any publishable record
    """Return the name that the worker could not use, and why; names that may be left out are fine when they are."""
    actor, tool = getattr(record, "actor", None), getattr(record, "tool", None)
    wrong = check_identity(record.tenant, "-" if actor is None else actor, "-" if tool is None else tool)
    if wrong is None:
        return None
    field, _, why = wrong.partition(" ")
    return field, f"field `{field}` {why}."


def _unusable_target(record: Any) -> tuple[str, str] | None:  # noqa: ANN401 - any publishable record
    """Return what keeps a record about a breaker from naming one: the field, and what is wrong with it."""
    if isinstance(record, EnforcementAck):
        try:
            parse_breaker_id(record.breaker_id)
        except KeyFormatError as error:
            return "breaker_id", f"field `breaker_id`: {error}"
    if isinstance(record, Signal | Override):
        for field in _PARTS_OF_TARGET.get(str(record.scope), ()):
            if getattr(record, field) is None:
                return field, f"field `{field}` is missing: expected a string, as the scope is {record.scope}."
    return None


class Addresser:
    """Makes Kafka messages of records: value, headers, key, and always an explicit partition.

    Args:
        names: The topics' full names.
        partitions: Full topic name to its number of partitions.
    """

    def __init__(self, names: TopicNames, partitions: Callable[[str], int]) -> None:
        self._names = names
        self._partitions = partitions
        self._enveloper = Enveloper(names, Encoder)
        self._placed = functools.lru_cache(maxsize=65_536)(partition_for)

    def address(self, prepared: Prepared) -> Message:
        """Return the message of a record.

        Raises:
            EncodeError: A value does not fit the schema.
            KeyFormatError: The record names no target, so there is no partition for it.
        """
        record, topic = prepared.record, self._names.of(prepared.topic)
        count = self._partitions(topic)
        if isinstance(record, Signal):
            return to_message(record, count, self._names.prefix)
        if isinstance(record, Override):
            return order_message(record, self._names, count)
        if isinstance(record, EnforcementAck):
            target = parse_breaker_id(record.breaker_id)
            home = home_partition(target.scope, target.tenant, target.actor, target.tool, count)
            return self._enveloper.wrap(record, home)
        return self._enveloper.wrap(record, self._placed(actor_key(record.tenant, record.actor), count))


@functools.cache
def _override_encoder() -> Encoder:
    return Encoder("Override")


def order_message(record: Override, names: TopicNames, partitions: int) -> Message:
    """Return the message of a person's order: it goes to the home of its breaker's target.

    Args:
        record: The order.
        names: The topics' full names.
        partitions: How many partitions the topic has.

    Raises:
        EncodeError: A value does not fit the schema.
        KeyFormatError: The record names no target, so there is no partition for it.
    """
    key = breaker_id(record.scope, record.tenant, record.actor, record.tool, record.trace_id)
    home = home_partition(record.scope, record.tenant, record.actor, record.tool, partitions)
    head = headers("Override", record.override_id, f"/fuseboard/{record.person}", record.ts)
    return Message(names.overrides, home, key.encode(), _override_encoder().encode(record), head)


ADDRESS_ERRORS: Final = (EncodeError, KeyFormatError, ValueError, OverflowError, OSError)
"""What `Addresser.address` raises for a record that cannot be a message."""


@dataclass(frozen=True, slots=True)
class Rebase:
    """Moves event times so that the file's first or last event happens now; gaps shrink with the speed.

    Args:
        anchor: Which event is to happen now.
        first: Smallest time in the file, µs since the epoch.
        last: Largest time in the file.
        now: Wall clock at the start.
        speed: Multiple of event time; ``None`` is as fast as possible.
    """

    anchor: Literal["first", "last"]
    first: int
    last: int
    now: int
    speed: float | None

    def __call__(self, ts: int) -> int:
        """Return the shifted time."""
        if self.anchor == "last":
            return ts - self.last + self.now
        # A faster replay must not run ahead of the clock: the worker would set such times back to their arrival.
        return self.now + round((ts - self.first) / (self.speed or 1.0))


@dataclass(slots=True)
class Pacer:
    """Says how long to wait before an event, so that event time passes at a multiple of real time.

    Args:
        speed: Multiple of event time.
    """

    speed: float
    _first: int | None = None
    _began: float = 0.0

    def wait_s(self, ts: int, now: float) -> float:
        """Return the seconds to wait before sending the event of time ``ts`` (µs), given a monotonic clock."""
        if self._first is None:
            self._first, self._began = ts, now
        due = self._began + (ts - self._first) / 1_000_000 / self.speed
        return max(0.0, due - now)
