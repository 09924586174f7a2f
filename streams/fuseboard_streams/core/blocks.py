"""A block: named numpy arrays and a small JSON object as compact, checked bytes.

Layout, little-endian::

    magic "FBSB"  u16 version  u16 number of arrays  u32 CRC-32 of all that follows  u32 length of all that follows
    u32 length of the JSON object, the JSON object
    per array: u8 length of its name, its name, u8 dtype, u8 encoding, u8 stored item size, u8 width, u32 items,
               u64 base, and for DELTA u64 first value
    per array: padding to its stored item size, its stored items

Encodings: RAW as it is; OFFSET ``value - base`` in the narrowest unsigned type (none, if all are equal); DELTA for
ascending integers, such as row numbers: ``value[i] - value[i-1] - base``, likewise. Integer arithmetic wraps, so every
64-bit value survives.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from fuseboard_schemas.errors import FuseboardError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]

VERSION = 1
_MAGIC = b"FBSB"
_HEADER = struct.Struct("<4sHHII")
_LENGTH = struct.Struct("<I")
_SPEC = struct.Struct("<BBBBIQ")
_FIRST = struct.Struct("<Q")
_RAW, _OFFSET, _DELTA = 0, 1, 2
_DTYPES: tuple[np.dtype[Any], ...] = tuple(
    np.dtype(code) for code in ("?", "i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u4", "<u8", "<f4", "<f8")
)
_CODES = {dtype: code for code, dtype in enumerate(_DTYPES)}
_UNSIGNED: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}
_ALL = 0xFFFF_FFFF_FFFF_FFFF
_BYTE = [bytes((value,)) for value in range(256)]
_NOTHING: NDArray[np.uint8] = np.empty(0, np.uint8)
_SHORT = 4_096
"""Longer arrays are not worth copying together."""


class StateFormatError(FuseboardError):
    """Bytes of the state log that this version cannot use."""


_Stored: TypeAlias = "tuple[int, int, int, int, Array]"
"""Encoding, stored item size, base, first value, stored items."""


class _Spec(NamedTuple):
    name: str
    dtype: np.dtype[Any]
    encoding: int
    size: int
    width: int
    items: int
    base: int
    first: int


def _narrowest(span: int) -> int:
    """Bytes an unsigned value up to ``span`` needs: 0, 1, 2, 4 or 8."""
    if span == 0:
        return 0
    return 1 if span < 1 << 8 else 2 if span < 1 << 16 else 4 if span < 1 << 32 else 8


def _offset(values: Array, least: int, narrow: int) -> Array:
    """The stored items of integers from ``least`` on, in so many bytes each."""
    if not narrow:
        return _NOTHING
    unsigned = _UNSIGNED[values.dtype.itemsize]
    base = unsigned.type(least & (1 << 8 * unsigned.itemsize) - 1)
    shifted: Array = values.view(unsigned) - base
    return shifted.astype(_UNSIGNED[narrow])


def _stored(values: Array, kind: str, least: int, most: int) -> _Stored:
    """The narrowest form of a flat array of some kind that is cheap to find; ``values`` are its items as integers."""
    size = values.dtype.itemsize
    narrow = _narrowest(most - least)
    # Floats and booleans are only ever left out, when all are the same, bit for bit.
    if values.size == 0 or (narrow and (size == 1 or kind in "fb")):
        return _RAW, size, 0, 0, values
    if narrow and size == 4 and kind == "i" and values[0] == least and values[-1] == most:
        steps = values[1:] - values[:-1]
        first = int(steps.min())
        if first > 0 and (width := _narrowest(int(steps.max()) - first)) < size:
            return _DELTA, width, first, least, _offset(steps, first, width)
    if narrow >= size:
        return _RAW, size, 0, 0, values
    return _OFFSET, narrow, least, 0, _offset(values, least, narrow)


def _integers(array: Array) -> Array:
    """A flat array as integers of the same size, bit for bit."""
    return array if array.dtype.kind in "iu" else array.view(_UNSIGNED[array.dtype.itemsize])


def _ranges(arrays: Sequence[Array]) -> list[tuple[int, int]]:
    """The least and the greatest item of each array of integers; zeros for an empty one.

    A block has dozens of short arrays: two passes over all of one type together are cheaper than two calls for each.
    """
    found = [(0, 0)] * len(arrays)
    short: dict[np.dtype[Any], list[int]] = {}
    for i, array in enumerate(arrays):
        if array.size > _SHORT:
            found[i] = int(array.min()), int(array.max())
        elif array.size:
            short.setdefault(array.dtype, []).append(i)
    for members in short.values():
        joined = np.concatenate([arrays[i] for i in members])
        ends = np.cumsum([arrays[i].size for i in members])
        starts = np.concatenate(([0], ends[:-1]))
        least = np.minimum.reduceat(joined, starts).tolist()
        most = np.maximum.reduceat(joined, starts).tolist()
        for i, low, high in zip(members, least, most, strict=True):
            found[i] = low, high
    return found


def encode(arrays: Sequence[tuple[str, Array]], meta: Mapping[str, Any]) -> bytes:
    """Encodes named arrays of one or two dimensions (booleans, integers, floats) and a JSON object.

    Equal input gives equal bytes.

    Raises:
        ValueError: a dtype, shape or name that the format does not have.
    """
    text = json.dumps(meta, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
    head = [_LENGTH.pack(len(text)), text]
    for name, array in arrays:
        width = array.shape[1] if array.ndim == 2 else 1
        if array.dtype not in _CODES or array.ndim not in (1, 2) or not 1 <= width <= 255 or len(name.encode()) > 255:
            raise ValueError(f"array {name!r}: dtype {array.dtype} and shape {array.shape} cannot be encoded")
    body: list[tuple[int, Array]] = []
    integers = [_integers(np.ascontiguousarray(array).reshape(-1)) for _, array in arrays]
    for (name, array), values, (least, most) in zip(arrays, integers, _ranges(integers), strict=True):
        encoding, size, base, start, items = _stored(values, array.dtype.kind, least, most)
        width, label = array.shape[1] if array.ndim == 2 else 1, name.encode()
        spec = _SPEC.pack(_CODES[array.dtype], encoding, size, width, array.size, base & _ALL)
        head += (_BYTE[len(label)], label, spec)
        if encoding == _DELTA:
            head.append(_FIRST.pack(start & _ALL))
        body.append((size, items))
    parts, at = head, _HEADER.size + sum(map(len, head))
    for size, items in body:
        if items.size:
            pad = -at % size
            parts += (bytes(pad), items.tobytes())
            at += pad + items.nbytes
    rest = b"".join(parts)
    return _HEADER.pack(_MAGIC, VERSION, len(arrays), zlib.crc32(rest), len(rest)) + rest


def _refuse(what: str) -> StateFormatError:
    return StateFormatError(
        f"state log: {what}. The record was damaged or was not written by this software; "
        f"restore the `state` topic from a copy, or reset the shard's state"
    )


def _check(block: bytes) -> int:
    """Checks the frame; the number of arrays."""
    if len(block) < _HEADER.size:
        raise _refuse(f"a block of {len(block)} bytes is shorter than its header ({_HEADER.size})")
    magic, version, count, crc, length = _HEADER.unpack_from(block)
    if magic != _MAGIC:
        raise _refuse(f"a block begins with {magic!r}, expected {_MAGIC!r}")
    if version != VERSION:
        raise StateFormatError(
            f"state log: a block has format version {version}, this software reads {VERSION}; "
            f"run the version that wrote it, or a newer one"
        )
    if length != len(block) - _HEADER.size:
        raise _refuse(f"a block has {len(block) - _HEADER.size} bytes after its header, expected {length}")
    if zlib.crc32(memoryview(block)[_HEADER.size :]) != crc:
        raise _refuse("a block's checksum does not match its bytes")
    return int(count)


def _specs(block: bytes, at: int, count: int) -> tuple[list[_Spec], int]:
    specs = []
    for _ in range(count):
        start = at + 1
        at = start + block[at]
        name = block[start:at].decode()
        code, encoding, size, width, items, base = _SPEC.unpack_from(block, at)
        at += _SPEC.size
        first = 0
        if encoding == _DELTA:
            (first,) = _FIRST.unpack_from(block, at)
            at += _FIRST.size
        specs.append(_Spec(name, _DTYPES[code], encoding, size, width, items, base, first))
    return specs, at


def _wrapped(value: int, dtype: np.dtype[Any]) -> Array:
    """A 64-bit pattern as one item of an integer type of any size."""
    return np.array(value, np.uint64).astype(_UNSIGNED[dtype.itemsize])


def _widened(spec: _Spec, stored: Array | None) -> Array:
    """Undoes OFFSET or DELTA; ``stored`` is None if every stored item is zero."""
    unsigned = _UNSIGNED[spec.dtype.itemsize]
    base = _wrapped(spec.base, spec.dtype)
    if spec.encoding == _OFFSET:
        if stored is None:
            return np.full(spec.items, base, unsigned).view(spec.dtype)
        wide = stored.astype(unsigned)
        wide += base
        return wide.view(spec.dtype)
    values = np.empty(spec.items, unsigned)
    values[0] = _wrapped(spec.first, spec.dtype)
    values[1:] = base
    if stored is not None:
        values[1:] += stored
    return np.cumsum(values, dtype=unsigned, out=values).view(spec.dtype)


def decode(block: bytes) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays (those stored as they are: read-only views of ``block``) and the JSON object.

    Raises:
        StateFormatError: truncated, altered or of another version.
    """
    count = _check(block)
    try:
        return _decode(block, count)
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise _refuse(f"a block with a correct checksum cannot be read ({error})") from error


def _decode(block: bytes, count: int) -> tuple[dict[str, Array], dict[str, Any]]:
    at = _HEADER.size
    (length,) = _LENGTH.unpack_from(block, at)
    at += _LENGTH.size
    meta = json.loads(block[at : at + length].decode("utf-8", "surrogatepass"))
    specs, at = _specs(block, at + length, count)
    arrays: dict[str, Array] = {}
    for spec in specs:
        items = spec.items - 1 if spec.encoding == _DELTA else spec.items
        stored: Array | None = None
        if items and spec.size:
            at += -at % spec.size
            kind = spec.dtype if spec.encoding == _RAW else _UNSIGNED[spec.size]
            stored = np.frombuffer(block, kind, items, at)
            at += stored.nbytes
        if spec.encoding != _RAW:
            flat = _widened(spec, stored)
        else:
            flat = np.empty(0, spec.dtype) if stored is None else stored
        arrays[spec.name] = flat if spec.width == 1 else flat.reshape(-1, spec.width)
    if at != len(block):
        raise ValueError(f"{len(block) - at} bytes are left over")
    return arrays, meta


def pack_text(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Strings as one UTF-8 buffer and the length of each in bytes."""
    joined = "".join(texts)
    buffer = joined.encode("utf-8", "surrogatepass")
    if len(buffer) == len(joined):
        lengths = np.fromiter(map(len, texts), np.uint32, len(texts))
    else:
        lengths = np.fromiter((len(text.encode("utf-8", "surrogatepass")) for text in texts), np.uint32, len(texts))
    return np.frombuffer(buffer, np.uint8), lengths


def unpack_text(buffer: NDArray[np.uint8], lengths: NDArray[np.unsignedinteger]) -> list[str]:
    """Undoes ``pack_text``.

    Raises:
        StateFormatError: the lengths do not add up to the buffer.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    if (int(ends[-1]) if ends.size else 0) != buffer.size:
        raise _refuse("a string column's lengths do not add up")
    joined = buffer.tobytes().decode("utf-8", "surrogatepass")
    if len(joined) != buffer.size:
        # Ends in characters: a character starts at every byte that does not continue one.
        ends = np.concatenate(([0], np.cumsum((buffer & 0xC0) != 0x80)))[ends]
    stops = ends.tolist()
    return [joined[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


def pack_bytes(values: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Byte strings as one buffer and the length of each."""
    return np.frombuffer(b"".join(values), np.uint8), np.fromiter(map(len, values), np.uint32, len(values))


def unpack_bytes(buffer: NDArray[np.uint8], lengths: NDArray[np.unsignedinteger]) -> list[bytes]:
    """Undoes ``pack_bytes``.

    Raises:
        StateFormatError: the lengths do not add up to the buffer.
    """
    stops = np.cumsum(lengths, dtype=np.int64).tolist()
    if (stops[-1] if stops else 0) != buffer.size:
        raise _refuse("an object column's lengths do not add up")
    whole = buffer.tobytes()
    return [whole[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]
