"""The spool's files: order, limits, damage, locks."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from fuseboard.spool import Position, Spool, leftovers, pack, unpack
from fuseboard.transport import BY_KEY, Message


def message(number: int, size: int = 10) -> Message:
    headers = (("ce_id", str(number).encode()), ("traceparent", b""))
    return Message("fuseboard.tool-calls", BY_KEY, f"default/agent-{number}".encode(), bytes(size), headers)


def create(root: Path, name: str = "one", limit: int = 1_000_000, segment: int = 400) -> Spool:
    return Spool.create(root, name, limit_bytes=limit, segment_bytes=segment)


def read(spool: Spool) -> list[Message]:
    found = []
    while (item := spool.read()) is not None:
        found.append(item.message)
    return found


@pytest.mark.parametrize(
    "made",
    [
        message(1),
        Message("t", 3, b"", b"", ()),
        Message("t", BY_KEY, b"\x00\xff", bytes(range(256)), (("é", b"\x00"), ("é", b""))),
    ],
)
def test_a_message_is_read_as_written(made: Message) -> None:
    assert unpack(pack(made)) == made


def test_messages_come_back_in_order_over_segments(tmp_path: Path) -> None:
    spool = create(tmp_path)
    for number in range(50):
        assert spool.append(message(number)) is not None
    assert len(list(spool.path.glob("*.seg"))) > 5
    assert read(spool) == [message(number) for number in range(50)]
    assert not spool.empty


def test_acknowledged_segments_go_away_and_the_rest_is_read_by_the_next(tmp_path: Path) -> None:
    spool = create(tmp_path)
    positions = [spool.append(message(number)) for number in range(50)]
    before = len(list(spool.path.glob("*.seg")))
    assert positions[29] is not None
    spool.ack(positions[29])
    assert len(list(spool.path.glob("*.seg"))) < before
    spool.close()
    heir = Spool.adopt(tmp_path / "one")
    assert heir is not None
    assert read(heir) == [message(number) for number in range(30, 50)]


def test_an_empty_spool_leaves_nothing_behind(tmp_path: Path) -> None:
    spool = create(tmp_path)
    position = spool.append(message(1))
    assert position is not None
    spool.ack(position)
    assert spool.empty
    assert list(spool.path.glob("*.seg")) == []
    again = spool.append(message(2))
    assert again is not None
    assert again > position
    assert read(spool) == [message(2)]
    spool.ack(again)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_the_limit_is_kept_and_counts_other_spools(tmp_path: Path) -> None:
    first = create(tmp_path, "one", limit=2000)
    while first.append(message(1)) is not None:
        pass
    assert 1800 < first.size_bytes <= 2000
    second = create(tmp_path, "two", limit=2000)
    assert second.append(message(1)) is None
    assert second.empty


def test_a_truncated_tail_ends_the_spool(tmp_path: Path) -> None:
    spool = create(tmp_path, segment=1_000_000)
    for number in range(5):
        spool.append(message(number))
    spool.close()
    (segment,) = spool.path.glob("*.seg")
    for cut in (1, 9, 60):
        os.truncate(segment, segment.stat().st_size - cut)
        heir = Spool.adopt(spool.path)
        assert heir is not None
        found = read(heir)
        assert found == [message(number) for number in range(len(found))]
        assert len(found) < 5
        heir.abandon()


def test_damage_inside_a_segment_costs_its_rest_only(tmp_path: Path) -> None:
    spool = create(tmp_path, segment=400)
    for number in range(12):
        spool.append(message(number))
    spool.close()
    first, *_ = sorted(spool.path.glob("*.seg"))
    raw = bytearray(first.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    first.write_bytes(raw)
    heir = Spool.adopt(spool.path)
    assert heir is not None
    found = [int(item.headers[0][1]) for item in read(heir)]
    assert found == sorted(found)
    assert found[-1] == 11
    assert 0 < 12 - len(found) < 5


@pytest.mark.parametrize("garbage", [b"", b"FB", b"something else entirely", b"FBSPOOL1" + struct.pack(">II", 5, 0)])
def test_a_file_that_is_no_segment_is_skipped(tmp_path: Path, garbage: bytes) -> None:
    spool = create(tmp_path)
    spool.append(message(1))
    spool.close()
    (spool.path / "000000000000.seg").write_bytes(garbage)
    heir = Spool.adopt(spool.path)
    assert heir is not None
    assert read(heir) == [message(1)]


def test_a_spool_of_damage_only_is_empty(tmp_path: Path) -> None:
    spool = create(tmp_path)
    spool.append(message(1))
    spool.close()
    (segment,) = spool.path.glob("*.seg")
    os.truncate(segment, 12)
    heir = Spool.adopt(spool.path)
    assert heir is not None
    assert read(heir) == []
    assert heir.empty
    heir.close()
    assert leftovers(tmp_path, None) == []


def test_a_damaged_cursor_reads_everything_again(tmp_path: Path) -> None:
    spool = create(tmp_path, segment=1_000_000)
    positions = [spool.append(message(number)) for number in range(3)]
    assert positions[1] is not None
    spool.ack(positions[1])
    spool.close()
    (spool.path / "cursor").write_bytes(b"\x01" * 20)
    heir = Spool.adopt(spool.path)
    assert heir is not None
    assert read(heir) == [message(0), message(1), message(2)]


def test_one_reader_at_a_time(tmp_path: Path) -> None:
    spool = create(tmp_path)
    spool.append(message(1))
    assert Spool.adopt(spool.path) is None
    spool.close()
    heir = Spool.adopt(spool.path)
    assert heir is not None
    assert Spool.adopt(spool.path) is None


def test_what_is_on_its_way_is_not_read_back(tmp_path: Path) -> None:
    spool = create(tmp_path)
    for number in range(5):
        spool.append(message(number))
    spool.skip(spool.end)
    spool.append(message(5))
    assert read(spool) == [message(5)]


def test_files_are_private(tmp_path: Path) -> None:
    spool = create(tmp_path / "root")
    spool.append(message(1))
    for path in [tmp_path / "root", spool.path, *spool.path.iterdir()]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_disk_that_fails_is_no_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = create(tmp_path, segment=1_000_000)
    assert spool.append(message(0)) is not None
    real = os.write

    def full(descriptor: int, data: memoryview) -> int:
        real(descriptor, data[:7])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert spool.append(message(1)) is None
    monkeypatch.setattr(os, "write", real)
    assert spool.append(message(2)) is not None
    assert read(spool) == [message(0), message(2)]


def test_positions_order_by_segment_then_offset() -> None:
    assert Position(1, 900) < Position(2, 8) < Position(2, 9)
