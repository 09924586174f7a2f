"""The ordered disk spool that holds events while the broker is away.

A spool belongs to one writer (one process start) and lives in a directory of its own, locked with ``flock`` for as long
as the writer lives, so that a later process can tell a leftover from a spool in use. Events are appended to numbered
segment files and read back in the same order::

    <root>/<name>/lock
                  cursor              position up to which everything was delivered
                  000000000001.seg    8 bytes of magic, then frames: length u32, crc32 u32, body

Every append is handed to the operating system at once, which survives a killed process but not a power failure; a
completed segment is synced to the disk, and ``sync_every_append`` syncs each batch. A frame cut short by a crash ends
its segment; what follows in later segments is still read.
"""

from __future__ import annotations

import logging
import os
import shutil
import struct
import sys
import zlib
from typing import TYPE_CHECKING, NamedTuple, Self

from fuseboard.transport import Message

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("fuseboard.spool")

SUPPORTED = sys.platform != "win32"
"""Whether there are file locks; without them the SDK works from memory alone."""
_MAGIC = b"FBSPOOL1"
_FRAME = struct.Struct(">II")
_HEAD = struct.Struct(">iHiH")
_HEADER = struct.Struct(">Hi")
_CURSOR = struct.Struct(">QQI")
_MAX_BODY = 64 * 1024 * 1024


class Position(NamedTuple):
    """The place just behind one spooled message; positions grow in spool order."""

    segment: int
    offset: int


class Spooled(NamedTuple):
    """A message read back, with the position to acknowledge once it is delivered."""

    position: Position
    message: Message


def pack(message: Message) -> bytes:
    """Serialise a message as the body of one frame."""
    topic = message.topic.encode()
    parts = [_HEAD.pack(message.partition, len(topic), len(message.key), len(message.headers)), topic, message.key]
    for name, value in message.headers:
        encoded = name.encode()
        parts += [_HEADER.pack(len(encoded), len(value)), encoded, value]
    parts.append(message.value)
    return b"".join(parts)


def unpack(body: bytes) -> Message:
    """Read back what :func:`pack` wrote."""
    partition, topic_length, key_length, header_count = _HEAD.unpack_from(body)
    at = _HEAD.size
    topic = body[at : at + topic_length].decode()
    at += topic_length
    key = body[at : at + key_length]
    at += key_length
    headers: list[tuple[str, bytes]] = []
    for _ in range(header_count):
        name_length, value_length = _HEADER.unpack_from(body, at)
        at += _HEADER.size
        name = body[at : at + name_length].decode()
        at += name_length
        headers.append((name, body[at : at + value_length]))
        at += value_length
    return Message(topic, partition, key, body[at:], tuple(headers))


class Spool:
    """An ordered, bounded log of messages on disk with one writer and one reader.

    Not thread-safe: the publisher's thread owns it. No method raises ``OSError`` after construction: a disk that fails
    makes :meth:`append` return None, which the publisher counts.

    Args:
        path: The spool's directory, existing and locked through ``lock_fd``.
        lock_fd: File descriptor that holds the lock.
        limit_bytes: Size of the whole root directory, leftovers included, beyond which nothing is appended.
        segment_bytes: Size at which a new segment is begun.
        sync_every_append: Sync after every call of :meth:`sync`, not only when a segment is complete.
    """

    def __init__(
        self, path: Path, lock_fd: int, *, limit_bytes: int, segment_bytes: int, sync_every_append: bool = False
    ) -> None:
        self.path = path
        self._lock_fd = lock_fd
        self._limit = limit_bytes
        self._segment_bytes = segment_bytes
        self._sync_every_append = sync_every_append
        self._sizes: dict[int, int] = _segments(path)
        self._elsewhere = 0
        self._write_fd = -1
        self._write_segment = max(self._sizes, default=0)
        self._dirty = False
        self._cursor_fd = os.open(path / "cursor", os.O_RDWR | os.O_CREAT, 0o600)
        self._acked = self._read_cursor()
        self._read = self._acked
        self._read_fd = -1
        self._read_segment = 0
        self._end = self._acked if not self._sizes else Position(self._write_segment, self._sizes[self._write_segment])

    # ---------------------------------------------------------------- open

    @classmethod
    def create(cls, root: Path, name: str, *, limit_bytes: int, segment_bytes: int, sync: bool = False) -> Self:
        """Make a new spool directory below ``root``, locked before anybody can see it.

        Raises:
            OSError: The directory cannot be made or written.
        """
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        hidden, path = root / f".new-{name}", root / name
        hidden.mkdir(mode=0o700)
        lock_fd = _lock(hidden)
        if lock_fd is None:
            message = f"The spool directory {hidden} is locked although it is new."
            raise OSError(message)
        hidden.rename(path)
        spool = cls(path, lock_fd, limit_bytes=limit_bytes, segment_bytes=segment_bytes, sync_every_append=sync)
        spool._measure_elsewhere()
        return spool

    @classmethod
    def adopt(cls, path: Path) -> Self | None:
        """Take over the spool of a dead writer for reading; None when its writer, or another reader, has it."""
        try:
            lock_fd = _lock(path)
            if lock_fd is None:
                return None
            return cls(path, lock_fd, limit_bytes=0, segment_bytes=1)
        except OSError as error:
            log.warning("The leftover spool %s cannot be read: %s. Its events stay there.", path, error)
            return None

    # --------------------------------------------------------------- write

    @property
    def size_bytes(self) -> int:
        """Bytes on disk in this spool's segments."""
        return sum(self._sizes.values())

    @property
    def empty(self) -> bool:
        """Whether everything that was appended has been acknowledged."""
        return self._acked >= self._end

    @property
    def end(self) -> Position:
        """The position behind the last appended message."""
        return self._end

    def has_room(self, messages_bytes: int) -> bool:
        """Whether this many more bytes of frames fit under the limit."""
        return self._elsewhere + self.size_bytes + messages_bytes + len(_MAGIC) <= self._limit

    def append(self, message: Message) -> Position | None:
        """Write one message at the end; None when the limit is reached or the disk refuses."""
        body = pack(message)
        frame = _FRAME.pack(len(body), zlib.crc32(body)) + body
        if not self.has_room(len(frame)):
            return None
        try:
            if self._write_fd < 0 or self._sizes[self._write_segment] >= self._segment_bytes:
                self._roll()
            _write_all(self._write_fd, frame)
        except OSError as error:
            log.error(
                "The spool %s cannot be written: %s. Events that do not fit in memory are lost.", self.path, error
            )
            self._cut_back()
            return None
        self._dirty = True
        self._sizes[self._write_segment] += len(frame)
        self._end = Position(self._write_segment, self._sizes[self._write_segment])
        return self._end

    def sync(self) -> None:
        """End a batch of appends; forces it to the disk when the spool was opened so."""
        if self._sync_every_append:
            self.force()

    def force(self) -> None:
        """Force everything appended so far to the disk."""
        if self._dirty and self._write_fd >= 0:
            try:
                os.fsync(self._write_fd)
            except OSError as error:
                log.warning("The spool %s could not be synced: %s.", self.path, error)
            self._dirty = False

    def _roll(self) -> None:
        self.force()
        _close(self._write_fd)
        self._write_fd = -1
        self._measure_elsewhere()
        segment = self._write_segment + 1
        descriptor = os.open(_file(self.path, segment), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _write_all(descriptor, _MAGIC)
        except OSError:
            _close(descriptor)
            _file(self.path, segment).unlink(missing_ok=True)
            raise
        self._write_fd = descriptor
        self._write_segment = segment
        self._sizes[segment] = len(_MAGIC)

    def _cut_back(self) -> None:
        """Remove half a frame, or whatever follows would be unreadable."""
        if self._write_fd < 0:
            return
        try:
            os.ftruncate(self._write_fd, self._sizes[self._write_segment])
            os.lseek(self._write_fd, 0, os.SEEK_END)
        except OSError:
            _close(self._write_fd)  # The next append begins a new segment.
            self._write_fd = -1

    def _measure_elsewhere(self) -> None:
        total = 0
        for sibling in _siblings(self.path):
            total += sum(_segments(sibling).values())
        self._elsewhere = total

    # ---------------------------------------------------------------- read

    def skip(self, position: Position) -> None:
        """Do not read what lies before ``position``: it is on its way already."""
        self._read = max(self._read, position)

    def read(self) -> Spooled | None:
        """Return the next message, or None at the end. Reading does not remove anything: :meth:`ack` does."""
        while self._read < self._end:
            try:
                found = self._read_frame()
            except OSError as error:
                log.warning(
                    "The spool %s cannot be read: %s. The rest of segment %d is skipped.",
                    self.path,
                    error,
                    self._read.segment,
                )
                found = None
            if found is not None:
                return found
            following = [segment for segment in sorted(self._sizes) if segment > self._read.segment]
            if not following:
                self._end = max(self._read, self._acked)
                return None
            self._read = Position(following[0], 0)
        return None

    def _read_frame(self) -> Spooled | None:
        segment, offset = self._read
        if segment not in self._sizes:
            return None
        if self._read_segment != segment:
            _close(self._read_fd)
            self._read_fd = os.open(_file(self.path, segment), os.O_RDONLY)
            self._read_segment = segment
        offset = max(offset, len(_MAGIC))
        if offset == len(_MAGIC) and os.pread(self._read_fd, len(_MAGIC), 0) != _MAGIC:
            log.warning("%s is not a spool segment; it is skipped.", _file(self.path, segment))
            return None
        if offset >= self._sizes[segment]:
            return None
        header = os.pread(self._read_fd, _FRAME.size, offset)
        length, crc = _FRAME.unpack(header) if len(header) == _FRAME.size else (_MAX_BODY + 1, 0)
        body = os.pread(self._read_fd, length, offset + _FRAME.size) if length <= _MAX_BODY else b""
        if len(body) != length or zlib.crc32(body) != crc:
            log.warning("%s ends in a damaged event at byte %d; the rest of the file is skipped.", self.path, offset)
            return None
        self._read = Position(segment, offset + _FRAME.size + length)
        return Spooled(self._read, unpack(body))

    def ack(self, position: Position) -> None:
        """Note that everything up to ``position`` was delivered; frees segments that are done."""
        if position <= self._acked:
            return
        self._acked = position
        self._read = max(self._read, position)
        payload = struct.pack(">QQ", *position)
        try:
            os.pwrite(self._cursor_fd, payload + struct.pack(">I", zlib.crc32(payload)), 0)
            for segment in [number for number in self._sizes if number < position.segment]:
                self._remove(segment)
            if self.empty:
                self._remove_all()
        except OSError as error:
            log.warning("The spool %s could not be trimmed: %s. Events may be sent twice.", self.path, error)

    def _remove(self, segment: int) -> None:
        if segment == self._read_segment:
            _close(self._read_fd)
            self._read_fd, self._read_segment = -1, 0
        if segment == self._write_segment:
            _close(self._write_fd)
            self._write_fd = -1
        _file(self.path, segment).unlink(missing_ok=True)
        self._sizes.pop(segment, None)

    def _remove_all(self) -> None:
        for segment in list(self._sizes):
            self._remove(segment)
        self._end = self._read = self._acked

    def _read_cursor(self) -> Position:
        raw = os.pread(self._cursor_fd, _CURSOR.size, 0)
        if len(raw) == _CURSOR.size:
            segment, offset, crc = _CURSOR.unpack(raw)
            if zlib.crc32(raw[:16]) == crc:
                return Position(segment, offset)
        return Position(min(self._sizes, default=0), 0)

    # --------------------------------------------------------------- close

    def close(self) -> None:
        """Release the spool; removes its directory when nothing is left in it."""
        self.force()
        empty = self.empty
        self._close_files()
        if empty:
            shutil.rmtree(self.path, ignore_errors=True)
        _close(self._lock_fd)
        self._lock_fd = -1

    def abandon(self) -> None:
        """Close a forked child's copies of the files; the parent's lock and files stay as they are."""
        self._close_files()
        _close(self._lock_fd)
        self._lock_fd = -1

    def _close_files(self) -> None:
        for descriptor in (self._write_fd, self._read_fd, self._cursor_fd):
            _close(descriptor)
        self._write_fd = self._read_fd = self._cursor_fd = -1


def leftovers(root: Path, own: Path | None) -> list[Path]:
    """Directories below ``root`` that may hold a dead writer's events, oldest name first."""
    if not SUPPORTED or not root.is_dir():
        return []
    return [path for path in sorted(root.iterdir()) if path.is_dir() and path != own and not path.name.startswith(".")]


def _siblings(path: Path) -> list[Path]:
    try:
        return leftovers(path.parent, path)
    except OSError:
        return []


def _segments(path: Path) -> dict[int, int]:
    sizes: dict[int, int] = {}
    try:
        for file in path.glob("*.seg"):
            if file.stem.isdigit():
                sizes[int(file.stem)] = file.stat().st_size
    except OSError:
        return sizes
    return sizes


def _file(path: Path, segment: int) -> Path:
    return path / f"{segment:012d}.seg"


def _lock(path: Path) -> int | None:
    """Lock a spool directory; None when it is taken or was removed meanwhile."""
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path / "lock").st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)
