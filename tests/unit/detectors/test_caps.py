"""Hard caps against a list of what was spent, and midnights."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_detectors.caps import DAY, DaySpending, fold, over_day, over_event, rolls_over, still_over

CAP = 100
NONE = np.zeros(1, dtype=np.intp)


def spend(state: DaySpending, *events: tuple[int, int, int]) -> tuple[list[int], list[bool]]:
    """Events of one key: its time, stream time, its cost; what was spent then, and whether that broke the cap."""
    at, stream, cost = (np.array(column, dtype=np.int64) for column in zip(*events, strict=True))
    totals = fold(state, NONE, at, stream, cost)
    return totals.spent.tolist(), over_day(totals, cost, CAP).tolist()


def test_an_event_may_cost_as_much_as_its_cap() -> None:
    assert over_event(np.array([99, 100, 101]), 100).tolist() == [False, False, True]
    assert over_event(np.array([5, 5]), np.array([4, 5])).tolist() == [True, False], "a cap of each key"


def test_a_day_breaks_its_cap_once() -> None:
    state = DaySpending.fresh(1)
    assert spend(state, (5, 5, 60), (6, 6, 40), (7, 7, 1), (8, 8, 50)) == (
        [60, 100, 101, 151],
        [False] * 2 + [True, False],
    )
    assert still_over(state, 9, CAP).tolist() == [True]


def test_the_next_day_begins_at_nothing() -> None:
    state = DaySpending.fresh(1)
    spend(state, (DAY - 1, DAY - 1, 150))
    assert still_over(state, DAY - 1, CAP)[0]
    assert not still_over(state, DAY, CAP)[0], "midnight"
    assert spend(state, (DAY, DAY, 70), (DAY + 1, DAY + 1, 70)) == ([70, 140], [False, True])


def test_an_event_late_across_midnight_counts_nowhere() -> None:
    state = DaySpending.fresh(1)
    assert spend(
        state, (DAY - 3, DAY - 3, 90), (DAY + 1, DAY + 1, 60), (DAY - 2, DAY + 2, 80), (DAY + 3, DAY + 3, 41)
    ) == (
        [90, 60, 60, 101],
        [False, False, False, True],
    )


def test_an_event_late_within_the_day_counts() -> None:
    assert spend(DaySpending.fresh(1), (90, 90, 60), (20, 90, 60)) == ([60, 120], [False, True])


def test_a_key_that_was_quiet_for_days_does_not_carry_its_spending() -> None:
    state = DaySpending.fresh(1)
    spend(state, (5, 5, 99))
    late = 7 * DAY
    assert spend(state, (late - 1, late, 99), (late, late, 99)) == ([0, 99], [False, False])


def test_caps_roll_over_at_midnight_by_utc() -> None:
    assert rolls_over(np.array([0, DAY - 1, DAY, DAY + 1])).tolist() == [DAY, DAY, 2 * DAY, 2 * DAY]
    # 2026-11-23 16:00 UTC -> 2026-11-24 00:00 UTC
    assert rolls_over(np.array([1_795_449_600_000_000])).tolist() == [1_795_478_400_000_000]


@given(
    events=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, DAY // 3), st.integers(0, DAY // 2), st.integers(0, 50)),
        max_size=50,
    )
)
def test_it_is_what_lists_say(events: list[tuple[int, int, int, int]]) -> None:
    """Four keys, any order of them, in one piece."""
    stream, rows = 0, []
    for key, passed, late, cost in events:
        stream += passed
        rows.append((key, max(stream - late, 0), stream, cost))
    state = DaySpending.fresh(4)
    day: dict[int, tuple[int, int]] = {}
    expected = []
    for key, at, now, cost in rows:
        number, spent = day.get(key, (0, 0))
        spent = spent if number == now // DAY else 0
        spent += cost if at // DAY == now // DAY else 0
        day[key] = (now // DAY, spent)
        expected.append((key, spent))
    order = sorted(range(len(rows)), key=lambda i: rows[i][0])
    if not order:
        return
    ordered = np.array([rows[i] for i in order])
    keys, starts = np.unique(ordered[:, 0], return_index=True)
    part = DaySpending(state.day[keys], state.micro_usd[keys])
    totals = fold(part, starts, ordered[:, 1], ordered[:, 2], ordered[:, 3])
    assert totals.spent.tolist() == [expected[i][1] for i in order]
    assert part.micro_usd.tolist() == [day[key][1] for key in keys.tolist()]


def test_no_events_change_nothing() -> None:
    state, none = DaySpending.fresh(0), np.zeros(0, dtype=np.int64)
    totals = fold(state, np.zeros(0, dtype=np.intp), none, none, none)
    assert (len(totals.spent), len(totals.counted)) == (0, 0)
