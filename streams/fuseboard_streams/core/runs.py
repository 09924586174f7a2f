"""Where something is in an array: small batches ask dozens of times, and numpy's own functions take thrice as long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def run_starts(values: NDArray[Any]) -> NDArray[np.intp]:
    """Where each stretch of equal values begins, shape (runs,), for values of shape (n,)."""
    begins = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=begins[1:])
    return places(begins)


def places(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The positions at which a mask of shape (n,) is true, ascending."""
    found: NDArray[np.intp] = mask.nonzero()[0]
    return found
