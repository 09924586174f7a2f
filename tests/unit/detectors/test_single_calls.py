"""What is seen in single calls: ungated ones and first uses."""

from __future__ import annotations

import numpy as np
import pytest

from fuseboard_detectors.first_use import Experience, Used, fold
from fuseboard_detectors.ungated import NOT_OPEN, Breaches, count, ungated

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("began_s", "executed", "probe", "found"),
    [
        (105, True, False, False),
        (105.000001, True, False, True),
        (99, True, False, False),
        (200, False, False, False),
        (200, True, True, False),
    ],
)
def test_a_call_is_ungated_if_it_began_long_after_the_command(
    began_s: float, executed: bool, probe: bool, found: bool
) -> None:
    """A call that was under way when its target was opened is none, however long it takes."""
    got = ungated(
        np.array([round(began_s * SECOND)]),
        np.array([100 * SECOND]),
        np.array([executed]),
        np.array([probe]),
        after_us=5 * SECOND,
    )
    assert got.tolist() == [found]


def test_a_target_that_is_not_open_has_no_ungated_calls() -> None:
    late = np.array([np.iinfo(np.int64).max // 2])
    yes = np.array([True])
    assert not ungated(late, np.array([NOT_OPEN]), yes, ~yes, after_us=5 * SECOND)[0]


def test_ungated_calls_are_counted_by_client() -> None:
    state = Breaches.fresh(3)
    client = np.array([2, 0, 2, 1])
    count(state, client, np.array([50, 60, 40, 70]), np.array([True, True, True, False]))
    assert (state.calls.tolist(), state.last.tolist()) == ([1, 0, 2], [60, 0, 50])


def test_the_first_use_of_a_tool_by_an_experienced_actor() -> None:
    """Two actors: tools 0 and 1 are the first's, 2 and 3 the second's."""
    actors, tools = Experience.fresh(2), Used.fresh(4)
    found = fold(actors, tools, np.array([0, 5]), np.array([0, 0, 0, 1, 1, 2, 3]), after=3)
    assert found.tolist() == [False, False, False, True, False, False, False]
    assert actors.calls.tolist() == [5, 2]
    again = fold(actors, tools, np.array([0, 1]), np.array([1, 3]), after=0)
    assert again.tolist() == [False, False], "all have been used"


def test_the_call_itself_is_not_experience() -> None:
    actors, tools = Experience.fresh(1), Used.fresh(5)
    assert fold(actors, tools, np.array([0]), np.array([0, 0]), after=2).tolist() == [False, False]
    assert fold(actors, tools, np.array([0]), np.array([1]), after=2).tolist() == [True]
