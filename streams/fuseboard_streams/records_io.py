"""Reading files of one JSON object per line, without ever giving up on the rest of the file because of one line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Never

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINE_BYTES: Final = 4 * 1024 * 1024
"""Longest line that is read: a record may have 1 MB, and JSON may spell one byte in up to six characters."""

_CHUNK: Final = 64 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_GZIP: Final = b"\x1f\x8b"
_SPREAD: Final = {"[": "`jq -c '.[]' FILE` makes them of an array", "{": "`jq -c . FILE` makes them of this"}
"""What the first line of JSON for people is, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one line could not be used: where it is, and what was found and expected there."""

    source: str
    line: int
    field: str | None
    detail: str

    def __str__(self) -> str:
        """Return the problem as one sentence that starts with file and line."""
        return f"{self.source}:{self.line}: {self.detail}"

    def as_json(self) -> dict[str, Any]:
        """Return the problem as a JSON object."""
        return {"file": self.source, "line": self.line, "field": self.field, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Line:
    """One usable line: its number (from 1), its length with the line end, and the JSON object on it.

    Fractions are decimals, so that amounts of money keep every digit that is written.
    """

    number: int
    size: int
    value: dict[str, Any]


class _LineError(Exception):
    """What is wrong with one line."""

    def __init__(self, found: str, expected: str, field: str | None = None) -> None:
        super().__init__(f"{found}; expected {expected}.")
        self.field = field


def read_lines(stream: BinaryIO, source: str, *, max_bytes: int = MAX_LINE_BYTES) -> Iterator[Line | Problem]:
    """Yield the objects of a JSONL stream in order, a `Problem` in place of each line that has none.

    Blank lines are skipped; a byte-order mark at the start and CRLF line ends are accepted. A line longer than
    ``max_bytes`` is skipped without being held in memory.

    Args:
        stream: Binary, read once and forwards only.
        source: The file's name for messages, ``<stdin>`` for standard input.
        max_bytes: Longest line to accept.
    """
    number = 0
    while raw := stream.readline(max_bytes + 1):
        number += 1
        if len(raw) > max_bytes and not raw.endswith(b"\n"):
            size = len(raw) + _skip_line(stream)
            yield Problem(source, number, None, f"a line of {size:,} bytes; expected at most {max_bytes:,} per record.")
            continue
        size = len(raw)
        if number == 1:
            raw = raw.removeprefix(_BOM)
        if not raw.strip():
            continue
        try:
            yield Line(number, size, _parse(raw.strip()))
        except _LineError as error:
            yield Problem(source, number, error.field, str(error))


def _skip_line(stream: BinaryIO) -> int:
    """Read to the end of the current line and return how many bytes that were."""
    skipped = 0
    while chunk := stream.readline(_CHUNK):
        skipped += len(chunk)
        if chunk.endswith(b"\n"):
            break
    return skipped


def _parse(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in ``raw``.

    Raises:
        _LineError: There is none.
    """
    if raw.startswith(_GZIP):
        raise _LineError("compressed data", "text: unpack it first, `gunzip -c FILE | …`")
    nul = raw.find(b"\0")
    if nul >= 0:
        raise _LineError(f"a NUL byte at byte {nul + 1}", "JSON text (is the file cut short, or UTF-16?)")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _LineError(f"byte {error.start + 1} (0x{raw[error.start]:02x}) is not UTF-8", "UTF-8 text") from error
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        if text in _SPREAD:
            expected = f"one JSON object per line; {_SPREAD[text]}"
            raise _LineError("JSON over several lines", expected) from error
        raise _LineError(f"not JSON at column {error.colno}: {error.msg}", "one JSON object per line") from error
    except RecursionError as error:
        raise _LineError("JSON nested too deeply", "a flat JSON object") from error
    except ValueError as error:
        # Python refuses integers of thousands of digits.
        raise _LineError(f"not a usable number: {error}", "numbers of at most 64 bits") from error
    if not isinstance(value, dict):
        raise _LineError(f"a JSON {_kind(value)}", "one JSON object per line, {…}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, refusing a field that is there twice: which one counts would be a guess."""
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _LineError(f"field `{twice}` is there twice", "each field once", twice)
    return result


def _constant(name: str) -> Never:
    """Refuse NaN and the infinities, which JSON does not have."""
    raise _LineError(f"{name} is not a JSON number", "a finite number")


def _kind(value: object) -> str:
    """Return the JSON name of a value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, list):
        return "array"
    return "string" if isinstance(value, str) else "number"


# Made once: json.loads would make one for every line.
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=Decimal)
