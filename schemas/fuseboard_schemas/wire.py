"""The wire format of values, Confluent's: a zero byte, the schema id as four bytes big-endian, the Avro body."""

from __future__ import annotations

import struct

from fuseboard_schemas.errors import FuseboardError

MAGIC = 0
HEADER_LENGTH = 5
MAX_EVENT_BYTES = 256 * 1024
"""Longest value, header included, that the worker takes from an input topic."""

_HEADER = struct.Struct(">bI")


class WireFormatError(FuseboardError, ValueError):
    """Bytes that do not begin with the header of the wire format."""


def header(schema_id: int) -> bytes:
    """The five bytes before the body."""
    return _HEADER.pack(MAGIC, schema_id)


def schema_id(value: bytes) -> int:
    """The schema id in a value's header.

    Raises:
        WireFormatError: The value is shorter than a header or does not begin with a zero byte.
    """
    if len(value) < HEADER_LENGTH:
        raise WireFormatError(f"The value has {len(value)} bytes; the wire format needs at least {HEADER_LENGTH}.")
    magic, number = _HEADER.unpack_from(value)
    if magic != MAGIC:
        raise WireFormatError(f"The value begins with the byte 0x{value[0]:02x} instead of 0x00: not the wire format.")
    return int(number)


def split(value: bytes) -> tuple[int, bytes]:
    """A value's schema id and its body.

    Raises:
        WireFormatError: See :func:`schema_id`.
    """
    return schema_id(value), value[HEADER_LENGTH:]
