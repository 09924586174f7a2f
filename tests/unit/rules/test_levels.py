"""How many failures in a row a level takes."""

from __future__ import annotations

import numpy as np
import pytest

from fuseboard_detectors.failure import FailureParams, FailureState, count_failure
from fuseboard_streams.rules.levels import straight_failures


@pytest.mark.parametrize(("null", "count"), [(0.1, 7), (0.5, 22), (0.9, 121), (0.005, 4)])
def test_at_a_known_rate(null: float, count: int) -> None:
    assert straight_failures(FailureParams(known_null=null)) == count


def test_of_a_new_key_it_is_what_the_detector_does() -> None:
    params = FailureParams()
    state, at = FailureState.fresh(1, params), np.zeros(1, dtype=np.int64)
    done = 1
    while not count_failure(state, at, params).tripped[0]:
        done += 1
    assert straight_failures(params) == done == 12


def test_there_is_an_end() -> None:
    assert straight_failures(FailureParams(known_null=0.999_999)) is None
