"""Signals of guests: from a finding to a record, and from the record to a Kafka message in its target's home partition.

Pure: no I/O, no clock, no randomness; the names to import are in :mod:`fuseboard.guest`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote

from fuseboard.envelope import headers
from fuseboard.errors import FuseboardError
from fuseboard.transport import Message
from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.encoding import LONG_MAX, LONG_MIN
from fuseboard_schemas.keys import breaker_id, home_partition
from fuseboard_schemas.records import Scope, Signal, SignalLevel
from fuseboard_schemas.rules import MAX_NAME_BYTES
from fuseboard_schemas.topics import PREFIX, TopicNames

if TYPE_CHECKING:
    from enum import StrEnum

LONGEST_REASON: Final = 500
"""Characters of a reason; what is longer is cut there, with an ellipsis as the last."""

_METRIC: Final = re.compile(r"signals\.[a-z][a-z_.]*")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FIRST_TIME_US: Final = 946_684_800_000_000
_LAST_TIME_US: Final = 253_402_300_799_999_999
_ID_BYTES: Final = 16
_WORKERS: Final = "fuseboard/"
_PARTS: Final = {
    Scope.ACTOR: ("actor",),
    Scope.ACTOR_TOOL: ("actor", "tool"),
    Scope.TOOL: ("tool",),
    Scope.TENANT: (),
    Scope.SESSION: ("actor", "trace_id"),
}
"""What names a target besides its tenant."""
_IDENTITY: Final = ("source", "tenant", "scope", "actor", "tool", "trace_id", "level", "metric", "ts", "event_id")
"""What a finding is known by. How it was put into words is no part of it, and neither is the value: a program that
restarts in the middle of a window may come to another one about the same event."""
_Choice = TypeVar("_Choice", bound="StrEnum")


class SignalError(FuseboardError, ValueError):
    """A finding that makes no signal; the message names the field, what was expected and what to do."""


def signal_record(
    *,
    scope: Scope | str,
    level: SignalLevel | str,
    metric: str,
    source: str,
    ts: int | datetime,
    tenant: str = "default",
    actor: str | None = None,
    tool: str | None = None,
    trace_id: str | None = None,
    value: float | None = None,
    reason: str | None = None,
    event_id: str | None = None,
    signal_id: str | None = None,
    client_id: int = 0,
    seq: int | None = None,
) -> Signal:
    """A finding about a target, checked.

    Args:
        scope: What kind of target: ACTOR, ACTOR_TOOL, TOOL, TENANT or SESSION.
        level: INFO is recorded, WARN alerts, TRIP asks for the breaker to open.
        metric: ``signals.<name>``, the name in lower-case letters, dots and underscores: what rules ask for.
        source: The program that found it, 1 to 256 bytes; ``fuseboard/…`` is what workers call themselves.
        ts: Time of the finding: that of the event that decided, not the time now, or a repeat would be another signal.
            Microseconds since 1970-01-01 UTC, or a datetime with a time zone.
        tenant: Tenant of the target.
        actor: For ACTOR, ACTOR_TOOL and SESSION, and only for them.
        tool: For ACTOR_TOOL and TOOL, and only for them.
        trace_id: For SESSION, and only for it.
        value: What was measured.
        reason: The finding in words, for people; made one line, and cut after 500 characters.
        event_id: The event that decided.
        signal_id: Unique id. None: :func:`content_id`, so that a program that reads its input again repeats its signals
            under the same ids.
        client_id: 64 random bits per process start, signed; 0 for none.
        seq: Counts the signals of that client, whatever they are about; None for none. A number that the client has
            used before is a repeat and is dropped; none never is.

    Raises:
        SignalError: Something is missing, too much, or of the wrong form.
    """
    chosen = _one_of(Scope, "scope", scope)
    _check_target(chosen, {"tenant": tenant, "actor": actor, "tool": tool, "trace_id": trace_id})
    _check_source(source)
    _check_metric(metric)
    for field, given in (("event_id", event_id), ("signal_id", signal_id)):
        if given is not None:
            _check_name(field, given)
    _check_counter(client_id, seq)
    record = Signal(
        signal_id="",
        ts=_microseconds(ts),
        client_id=client_id,
        seq=seq,
        source=source,
        tenant=tenant,
        scope=chosen,
        actor=actor,
        tool=tool,
        trace_id=trace_id,
        level=_one_of(SignalLevel, "level", level),
        metric=metric,
        value=_number(value),
        event_id=event_id,
        reason=_one_line(reason),
    )
    return replace(record, signal_id=signal_id or content_id(record))


def content_id(signal: Signal) -> str:
    """The id of a signal by its content: 32 hex digits, equal for equal findings in any process and on any machine.

    The first 128 bits of the SHA-256 of who found what, about whom, when and by which event, as JSON: source, tenant,
    scope, actor, tool, trace, level, metric, ts and event id, without those that are null. Value and words are no part
    of it.
    """
    said = {name: value for name in _IDENTITY if (value := getattr(signal, name)) is not None}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()[:_ID_BYTES].hex()


def to_message(signal: Signal, partitions: int, prefix: str = PREFIX) -> Message:
    """The Kafka message of a signal, for a producer of any kind: produce it exactly so, its partition included.

    Args:
        signal: The finding, from :func:`signal_record`.
        partitions: Number of partitions of the topic.
        prefix: Prefix of all topic names.

    Returns:
        Topic; partition: the home of the target, where alone the worker accepts it; key: the target's breaker id;
        value in the Confluent wire format under the packaged schema id; CloudEvents headers.

    Raises:
        SignalError: The number of partitions is none.
        KeyFormatError: The signal's target lacks a part.
        EncodeError: A field has a value that the schema does not allow.
    """
    _check_partitions(partitions)
    key = breaker_id(signal.scope, signal.tenant, signal.actor, signal.tool, signal.trace_id)
    home = home_partition(signal.scope, signal.tenant, signal.actor, signal.tool, partitions)
    # The source of a CloudEvent is a URI reference, in which a name may not stand as it is.
    source = f"/fuseboard/{quote(signal.source)}"
    head = headers("Signal", signal.signal_id, source, signal.ts)
    return Message(_topic(prefix), home, key.encode(), _encoder().encode(signal), head)


@functools.cache
def _encoder() -> Encoder:
    return Encoder("Signal")


@functools.cache
def _topic(prefix: str) -> str:
    return TopicNames(prefix).signals


def _one_of(kind: type[_Choice], field: str, given: object) -> _Choice:
    found = kind.__members__.get(given) if isinstance(given, str) else None
    if found is None or found == "OTHER":
        choices = ", ".join(each for each in kind.__members__ if each != "OTHER")
        raise SignalError(f"{field} is {given!r}: expected one of {choices}.")
    return found


def _check_target(scope: Scope, parts: dict[str, str | None]) -> None:
    needed = ("tenant", *_PARTS[scope])
    for field, given in parts.items():
        if field in needed:
            if given is None:
                raise SignalError(f"{field} is missing: a signal about {_a(scope)} names its {' and '.join(needed)}.")
            _check_name(field, given)
        elif given is not None:
            others = [each for each, named in _PARTS.items() if field in named]
            raise SignalError(
                f"{field} is {given!r}, but a signal about {_a(scope)} has none: leave it out, or say which of "
                f"{', '.join(others)} the signal is about."
            )


def _a(scope: Scope) -> str:
    return f"{'an' if scope[0] in 'AEIOU' else 'a'} {scope}"


def _check_name(field: str, given: object) -> None:
    expected = f"expected a text of 1 to {MAX_NAME_BYTES} bytes of UTF-8 without NUL"
    if not isinstance(given, str):
        raise SignalError(f"{field} is {given!r}: {expected}.")
    try:
        size = len(given.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= MAX_NAME_BYTES or "\x00" in given:
        raise SignalError(f"{field} is {given!r:.80}: {expected}.")


def _check_source(source: str) -> None:
    _check_name("source", source)
    if source.startswith(_WORKERS):
        raise SignalError(
            f"source is {source!r:.80}: workers call themselves {_WORKERS}…, and pass over what they have published "
            "themselves. Name your program otherwise."
        )


def _check_metric(metric: object) -> None:
    if not isinstance(metric, str) or not _METRIC.fullmatch(metric):
        raise SignalError(
            f"metric is {metric!r:.80}: expected signals.<name> with a name of lower-case letters, dots and "
            "underscores, e.g. signals.low_scores; rules find a signal by it."
        )


def _check_partitions(partitions: object) -> None:
    if isinstance(partitions, bool) or not isinstance(partitions, int) or partitions < 1:
        raise SignalError(
            f"partitions is {partitions!r}: expected the number of partitions that the topic has, 1 or more; ask Kafka."
        )


def _microseconds(ts: object) -> int:
    if isinstance(ts, datetime):
        if ts.tzinfo is None:
            raise SignalError(f"ts is {ts!r}, without a time zone: give it one, e.g. with tzinfo=datetime.UTC.")
        ts = (ts - _EPOCH) // _MICROSECOND
    if isinstance(ts, bool) or not isinstance(ts, int):
        raise SignalError(f"ts is {ts!r}: expected whole microseconds since 1970-01-01 UTC, or a datetime.")
    if not _FIRST_TIME_US <= ts <= _LAST_TIME_US:
        raise SignalError(
            f"ts is {ts}: expected microseconds since 1970-01-01 UTC in the years 2000 to 9999; seconds are to be "
            "multiplied by 1,000,000, milliseconds by 1,000."
        )
    return ts


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):
            number = float(value)
            if math.isfinite(number):
                return number
    raise SignalError(f"value is {value!r:.80}: expected a finite number, or None.")


def _one_line(reason: object) -> str | None:
    if reason is None:
        return None
    if not isinstance(reason, str):
        raise SignalError(f"reason is {reason!r:.80}: expected a text, or None.")
    line = " ".join(reason.encode(errors="replace").decode().split())
    if len(line) > LONGEST_REASON:
        line = line[: LONGEST_REASON - 1] + "…"
    return line or None


def _check_counter(client_id: object, seq: object) -> None:
    if isinstance(client_id, bool) or not isinstance(client_id, int) or not LONG_MIN <= client_id <= LONG_MAX:
        raise SignalError(f"client_id is {client_id!r}: expected an integer of 64 bits with a sign, or 0 for none.")
    if seq is None:
        return
    if isinstance(seq, bool) or not isinstance(seq, int) or not 0 <= seq <= LONG_MAX:
        raise SignalError(f"seq is {seq!r}: expected a number that counts from 0, or None.")
    if client_id == 0:
        raise SignalError(
            f"seq is {seq}, but client_id is 0: numbers count for a client, and those of two programs would be taken "
            "for each other's repeats. Give 64 random bits as client_id, or leave out seq."
        )
