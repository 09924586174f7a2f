"""The failure detector's settings for a rule's test: what the file says, and for the rest what the worker is set to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

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

    What is normal is the share above the quantile, one in twenty for 95%: the prior has that mean, and the weight of
    the one for failures. Of a trace one observation is made for each tool, so one failure of it is counted.

    Args:
        test: What the file says; it has been checked.
        base: How it learns, floor and quantile of the null, and the odds.
    """
    weight = base.prior_alpha + base.prior_beta
    return replace(
        base,
        trip=DEFAULT_TRIP if test.trip is None else test.trip,
        warn=test.warn,
        prior_alpha=weight * float(1 - test.quantile),
        prior_beta=weight * float(test.quantile),
        known_null=None,
        cap=1,
    )
