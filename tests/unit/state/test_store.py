"""The store: rounds, restores, refusals, forgetting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fuseboard_streams.core.blocks import StateFormatError, decode
from fuseboard_streams.core.store import Delta, Store
from fuseboard_streams.core.tables import Column, Family, Table

if TYPE_CHECKING:
    from collections.abc import Callable


def _store(*extra: Column, calls: str = "i4", name: str = "actors") -> Store:
    hot = Family("hot", [Column("calls", calls), *extra])
    names = Family("names", [Column("name", str)])
    scratch = Family("scratch", [Column("mark", "u8")], volatile=True)
    return Store([Table(name, [hot, names, scratch], capacity=4), Table("empty", [Family("f", [Column("x", "i8")])])])


def _fill(store: Store, rows: int, budget: int = 1 << 20) -> Delta:
    table = store.tables["actors"]
    store.begin()
    new = table.allocate(rows)
    for family in ("hot", "names", "scratch"):
        table.touch(family, new)
    table["calls"][new] = new * 3
    table["mark"][new] = 5
    table["name"][new] = [f"tenant/{row}" for row in new.tolist()]
    delta = store.encode_changes(budget)
    store.commit()
    return delta


def _idle(store: Store, budget: int) -> Delta:
    store.begin()
    delta = store.encode_changes(budget)
    store.commit()
    return delta


def _restored(deltas: list[Delta], into: Store | None = None) -> Store:
    store = into or _store()
    for delta in deltas:
        store.apply(delta.block)
    store.finish_restore()
    return store


def _sliced(delta: Delta) -> tuple[list[int], int]:
    arrays, _ = decode(delta.block)
    rows = arrays.get("live/actors")
    return [] if rows is None else rows.tolist(), int(arrays.get("put/key#", np.empty(0)).size)


@pytest.mark.parametrize("budget", [1, 37, 64, 500])
def test_a_round_passes_every_row_and_object_once(budget: int) -> None:
    store = _store()
    _fill(store, 20)
    store.begin()
    for number in range(7):
        store.objects.put("tool", f"t{number}", b"x" * number)
    store.encode_changes(1 << 20)
    store.commit()
    for _ in range(2):
        rows: list[int] = []
        objects, first = 0, True
        while True:
            delta = _idle(store, budget)
            assert delta.starts_round == first
            first = False
            some, more = _sliced(delta)
            assert some or more or delta.ends_round
            rows += some
            objects += more
            if delta.ends_round:
                break
        assert rows == list(range(20))
        assert objects == 7


def test_a_slice_is_about_as_large_as_asked() -> None:
    store = _store()
    _fill(store, 5_000)
    # 4 bytes, a name taken for 32, and one for the row.
    rows, _ = _sliced(_idle(store, 3_700))
    assert len(rows) in (100, 101)


def test_without_a_budget_only_a_round_begins() -> None:
    store = _store()
    log = [_fill(store, 20, budget=0), _fill(store, 5, budget=0), _idle(store, 0)]
    assert [(delta.starts_round, len(_sliced(delta)[0])) for delta in log] == [(True, 1), (False, 0), (False, 0)]
    log.append(_idle(store, 1 << 20))
    # The slice goes on where the first one ended, and the round is whole.
    assert (_sliced(log[-1])[0], log[-1].ends_round) == (list(range(1, 25)), True)
    log.append(_idle(store, 0))
    assert log[-1].starts_round
    assert _restored(log).tables["actors"].size == 25


def test_restore() -> None:
    store = _store()
    log = [_fill(store, 50), _fill(store, 3), _idle(store, 100)]
    store.begin()
    store.tables["actors"].free(np.arange(0, 50, 2, dtype=np.int32))
    store.objects.put("breaker", "ACTOR:a/b", b"\x01")
    store.scalars |= {"stream_time": 2**62, "ratio": 0.1, "name": "ä", "none": None}
    log.append(store.encode_changes(100))
    store.commit()
    calls: list[str] = []
    other = _store()
    other.on_restored(lambda: calls.append(f"{other.tables['actors'].size} rows"))
    _restored(log, other)
    assert calls == ["28 rows"]
    table, want = other.tables["actors"], store.tables["actors"]
    assert table.live[:53].tolist() == want.live[:53].tolist()
    assert table["calls"][:53].tolist() == want["calls"][:53].tolist()
    assert table["name"][:53].tolist() == want["name"][:53].tolist()
    assert other.objects.get("breaker", "ACTOR:a/b") == b"\x01"
    assert other.scalars == store.scalars
    # What a volatile family holds is its owner's to compute.
    assert not table.used("scratch").any()
    assert not table["mark"].any()
    assert table.capacity >= table.high_water == 53


def test_an_aborted_transaction_leaves_the_round_where_it_was() -> None:
    store = _store()
    _fill(store, 40)
    _idle(store, 100)
    store.begin()
    first = store.encode_changes(200)
    store.rollback()
    store.begin()
    assert store.encode_changes(200) == first


def test_an_object_set_back_to_what_it_was_is_no_change() -> None:
    store = _store()
    store.begin()
    store.objects.put("tool", "a", b"1")
    store.encode_changes(1000)
    store.commit()
    store.begin()
    store.objects.put("tool", "a", b"2")
    store.objects.put("tool", "a", b"1")
    store.objects.put("tool", "b", b"1")
    store.objects.delete("tool", "b")
    assert store.objects.changes() == ([], [])
    store.objects.delete("tool", "a")
    assert store.objects.changes() == ([], [("tool", "a")])
    store.rollback()
    assert store.objects.get("tool", "a") == b"1"


def test_the_slice_forgets_what_has_expired_and_a_rollback_brings_it_back() -> None:
    store = _store()
    log = [_fill(store, 30)]
    table = store.tables["actors"]
    asked: list[int] = []

    def expired(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        asked.extend(rows.tolist())
        return np.asarray(table["calls"][rows] % 2 == 1)

    store.expire("actors", expired)
    store.begin()
    store.encode_changes(1 << 20)
    assert table.size == 15
    store.rollback()
    assert table.size == 30
    log.append(_idle(store, 1 << 20))
    assert asked == [*range(30)] * 2
    restored = _restored(log).tables["actors"]
    assert np.flatnonzero(restored.live).tolist() == list(range(0, 30, 2))


def test_nothing_is_written_between_encoding_and_commit() -> None:
    store = _store()
    store.begin()
    store.encode_changes(10)
    for call in (
        lambda: store.tables["actors"].allocate(1),
        lambda: store.objects.put("a", "b", b""),
        lambda: store.encode_changes(10),
        lambda: store.apply(b""),
        store.begin,
    ):
        with pytest.raises(RuntimeError):
            call()


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (lambda: _store(name="agents"), "table 'actors'"),
        (lambda: _store(calls="i8"), "set/actors/hot/calls as int32"),
        (lambda: Store([Table("actors", [Family("names", [Column("name", str)])])]), "table 'empty'"),
    ],
)
def test_what_the_software_does_not_know_is_refused(other: Callable[[], Store], what: str) -> None:
    delta = _fill(_store(), 3)
    with pytest.raises(StateFormatError, match=f"{what}.*run the version that wrote it"):
        other().apply(delta.block)


def test_an_unknown_column_is_refused_and_a_new_one_gets_its_default() -> None:
    older, newer = _store(), _store(Column("trips", "i4", default=7))
    old_block, new_block = _fill(older, 3).block, _fill(newer, 3).block
    with pytest.raises(StateFormatError, match="set/actors/hot/trips"):
        _store().apply(new_block)
    store = _store(Column("trips", "i4", default=7))
    store.apply(old_block)
    store.finish_restore()
    assert store.tables["actors"]["trips"][:3].tolist() == [7, 7, 7]


def test_the_order_of_blocks_is_checked() -> None:
    store = _store()
    log = [_fill(store, 30), *(_idle(store, 100) for _ in range(30))]
    with pytest.raises(StateFormatError, match="block 4 follows block 2"):
        _restored([log[0], log[1], log[3]])
    with pytest.raises(StateFormatError, match="does not start a round"):
        _restored(log[2:])
    starts = [at for at, delta in enumerate(log) if delta.starts_round]
    ends = [at for at, delta in enumerate(log) if delta.ends_round]
    cut = starts[1]
    assert cut < ends[1]
    with pytest.raises(StateFormatError, match="one whole round"):
        _restored(log[cut : ends[1]])
    _restored(log[cut : ends[1] + 1])
    with pytest.raises(RuntimeError, match="new store"):
        store.apply(log[0].block)


def test_a_restore_must_be_finished_before_work_begins() -> None:
    store = _store()
    store.apply(_fill(_store(), 3).block)
    with pytest.raises(RuntimeError, match="finish_restore"):
        store.begin()


def test_size_of_an_ordinary_event() -> None:
    """Three rows an event: statistics of a tool and of an actor, and a client's replay window."""
    rng = np.random.default_rng(3)
    tools = Table("tools", [Family("hot", [Column("successes", "i4"), Column("seen", "i4")])])
    actors = Table("actors", [Family("hot", [Column("successes", "i4"), Column("seen", "i4")])])
    clients = Table("clients", [Family("hot", [Column("seq", "i8"), Column("window", "u8"), Column("seen", "i4")])])
    store = Store([tools, actors, clients])
    for table in (tools, actors, clients):
        store.begin()
        rows = table.allocate(20_000)
        table.touch("hot", rows)
        if table is clients:
            table["seq"][rows] = 1_000_000 + rng.integers(0, 200_000, rows.size)
        else:
            table["successes"][rows] = rng.integers(0, 50_000, rows.size)
        table["seen"][rows] = 800_000_000 + rng.integers(0, 50_000, rows.size)
        store.commit()
    store.begin()
    events = 2_000
    for table in (tools, actors, clients):
        rows = np.sort(rng.choice(20_000, events, replace=False)).astype(np.int32)
        table.touch("hot", rows)
        if table is clients:
            table["window"][rows] = rng.integers(0, 2**64, events, dtype=np.uint64)
    assert len(store.encode_changes(0).block) / events < 40
