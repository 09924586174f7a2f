"""The failure detector's settings for a rule's test: what the file says, and for the rest what the worker is set to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fuseboard_detectors.exceed import ExceedParams, largest_null
from fuseboard_streams.rules.levels import DEFAULT_TRIP

if TYPE_CHECKING:
    from fuseboard_detectors.failure import FailureParams
    from fuseboard_streams.rules.model import EDetector, Exceed


def failure_params(test: EDetector, base: FailureParams) -> FailureParams:
    """Settings of an e-detector on failures or violations.

    Args:
        test: What the file says; it has been checked.
        base: The prior, how it learns and the odds.
    """
    baseline = test.baseline
    return replace(
        base,
        trip=DEFAULT_TRIP if test.trip is None else test.trip,
        warn=test.warn,
        floor=float(baseline.floor),
        quantile=float(baseline.quantile),
        known_null=None if baseline.known is None else float(baseline.known),
        cap=test.max_failures_per_trace,
    )


def exceed_params(test: Exceed, base: FailureParams) -> FailureParams:
    """Settings of an e-detector on "above the reference quantile".

    The null is known once the reference is: until then it stands for the largest that one usually has, 6.8% with the
    defaults. Of a trace one observation is made for each tool, so one failure of it is counted.

    Args:
        test: What the file says; it has been checked.
        base: Floor and quantile of the null, and the odds.
    """
    quantile = test.quantile.numerator, test.quantile.denominator
    reference = ExceedParams(quantile, test.reference, posterior=base.quantile, floor=base.floor)
    return replace(
        base,
        trip=DEFAULT_TRIP if test.trip is None else test.trip,
        warn=test.warn,
        known_null=largest_null(reference),
        cap=1,
    )
