"""Stretches of equal values in an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def run_starts(values: NDArray[Any]) -> NDArray[np.intp]:
    """Where each stretch of equal values begins, shape (runs,), for values of shape (n,).

    Small batches call this a dozen times each: a third of the time of ``np.diff`` with something put in front.
    """
    begins = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=begins[1:])
    starts: NDArray[np.intp] = begins.nonzero()[0]
    return starts
