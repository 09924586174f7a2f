"""What an evidence level means for one key: how many failures in a row it takes."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from fuseboard_detectors.failure import FailureParams, initial_null, likelihoods, mean_r

DEFAULT_TRIP: Final = 1e6
"""Trip level where a rule names none."""
HIGHEST: Final = 1e100
"""No higher level is accepted: evidence is cut off at 10^150, and none this strong is ever needed."""
MANY: Final = 50
"""More failures in a row than this are worth a warning."""
_MOST: Final = 1_000


@lru_cache(maxsize=256)
def straight_failures(params: FailureParams) -> int | None:
    """How many failures in a row, each of another trace, trip a key without history.

    R <- (R + 1) L1 at each failure, from 0, at the initial null: 7 at a null of 10%, 22 at 50%, 121 at 90% with the
    default odds and level.

    Args:
        params: The detector's settings.

    Returns:
        None for more than 1,000.
    """
    _, l1, _ = likelihoods(np.array([initial_null(params)]), params.odds)
    r = np.zeros_like(l1)
    for count in range(1, _MOST + 1):
        r = (r + 1.0) * l1
        if mean_r(r)[0] >= params.trip:
            return count
    return None
