"""The replay window against a set of everything that was seen."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_streams.core.dedup import deduplicate
from fuseboard_streams.core.layout import clients_table
from fuseboard_streams.core.settings import CoreSettings
from fuseboard_streams.core.tables import Table
from tests.support.calls import Call, fold, make_shard

_numbers = st.one_of(st.integers(0, 12), st.integers(0, 200), st.sampled_from([63, 64, 65, 126, 127, 128, 2**40]))


def clients() -> Table:
    """Three clients of whom nothing has been seen."""
    table = clients_table(CoreSettings())
    table.begin()
    table.touch("hot", table.add(np.arange(3, dtype=np.uint64), np.zeros(3, dtype=np.uint64)))
    return table


class Window:
    """All the numbers of a client that were let in, and the rule for those too old to tell."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.missing = self.recovered = 0

    def admits(self, seq: int) -> bool:
        highest = max(self.seen, default=None)
        if seq in self.seen or (highest is not None and seq <= highest - 63):
            return False
        if highest is not None:
            self.missing += max(0, seq - highest - 1)
            self.recovered += seq < highest
        self.seen.add(seq)
        return True


@given(
    sent=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.one_of(st.none(), _numbers)), max_size=80),
    cuts=st.lists(st.integers(0, 80), max_size=5),
)
def test_the_window_is_a_set(sent: list[tuple[int, int, int | None]], cuts: list[int]) -> None:
    """Per client and actor; a call without a number is never a repeat; any batches."""
    windows: dict[tuple[int, int], Window] = {}
    admitted = 0
    for client, actor, seq in sent:
        admitted += seq is None or windows.setdefault((client, actor), Window()).admits(seq)
    calls = [Call(i * 0.01, actor=f"a{actor}", client=client, seq=seq) for i, (client, actor, seq) in enumerate(sent)]
    shard = make_shard()
    fold(shard, calls, sorted(min(cut, len(calls)) for cut in cuts))
    assert shard.counters.counted == admitted
    assert shard.counters.duplicates == len(sent) - admitted
    assert shard.counters.missing == sum(window.missing for window in windows.values())
    assert shard.counters.recovered == sum(window.recovered for window in windows.values())


@given(sent=st.lists(st.tuples(st.integers(0, 2), _numbers), min_size=1, max_size=80))
def test_what_each_number_shows_adds_up(sent: list[tuple[int, int]]) -> None:
    """Event by event as in one piece; expected are as many as came and are missing."""
    whole, torn = clients(), clients()
    columns = tuple(np.array([each[i] for each in sent], dtype=np.int64) for i in range(2))
    at_once = deduplicate(whole, *columns, each=True)
    parts = [deduplicate(torn, columns[0][i : i + 1], columns[1][i : i + 1], each=True) for i in range(len(sent))]
    assert at_once.expected is not None
    assert at_once.gaps is not None
    assert at_once.expected.tolist() == [int(part.expected[0]) for part in parts if part.expected is not None]
    assert at_once.gaps.tolist() == [int(part.gaps[0]) for part in parts if part.gaps is not None]
    assert at_once.gaps.sum() == at_once.missing - at_once.recovered
    assert at_once.expected.sum() == at_once.fresh.sum() + at_once.gaps.sum()


def test_63_behind_is_a_repeat_and_62_is_not() -> None:
    for behind, duplicates in ((62, 0), (63, 1)):
        shard = make_shard()
        fold(shard, [Call(0, seq=100), Call(1, seq=100 - behind)])
        assert shard.counters.duplicates == duplicates


def test_an_idle_client_is_a_new_one() -> None:
    """After more than an hour of stream time; within it repeats are known."""
    shard = make_shard()
    fold(shard, [Call(0, seq=5), Call(3600, seq=5)])
    assert shard.counters.duplicates == 1
    fold(shard, [Call(7201, seq=5)], first_offset=2)
    assert (shard.counters.duplicates, shard.counters.counted, shard.counters.missing) == (1, 2, 0)


def test_the_hour_is_counted_from_the_event_before_however_it_is_cut() -> None:
    """Two events of one batch: the first within the hour, the second within the hour from the first."""
    calls = [Call(0, seq=5), Call(3598, seq=6), Call(3602, seq=5)]
    for cuts in ([], [1], [1, 2]):
        shard = make_shard()
        fold(shard, calls, cuts)
        assert shard.counters.duplicates == 1


def test_a_negative_number_is_no_number() -> None:
    """It is never taken for a repeat, and says nothing about what is missing."""
    shard = make_shard()
    fold(shard, [Call(at, seq=seq) for at, seq in enumerate((-5, -5, 0, 1, -7))])
    assert (shard.counters.duplicates, shard.counters.missing, shard.counters.counted) == (0, 0, 5)
