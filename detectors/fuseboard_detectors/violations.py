"""Violations of policy: which denials are one, which of them acts at once, and what is asked of noisy classifiers.

A violation is an action with at least one denial in effect. Several rules may deny one call, and the call itself may
report its refusal, so denials are told apart by the call's span: a call is one violation, whoever denies it, however
often. A denial of critical severity acts at once, also when the call had been denied by a milder rule before; a second
critical denial of the same call does not.

How many violations are too many is asked by `recent` (hits in distinct traces) for rules that decide for certain. A
classifier that is wrong in a share f of harmless actions is given to the e-detector with the null 2 f, one hit of a
trace at most, so that one odd conversation is not taken for an attack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from fuseboard_detectors.failure import FailureParams
from fuseboard_detectors.seen import Seen, combine, first_times
from fuseboard_schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from fuseboard_detectors.segments import U64, Bools

LARGEST_FALSE_RATE: Final = 0.05
"""A classifier that is wrong more often says too little to act on."""
_CRITICAL: Final = np.uint64(0x5BF03635)
_DAY_US: Final = 86_400_000_000


@dataclass(slots=True)
class Violations:
    """What each of n denials is, shape (n,) each."""

    counted: Bools
    """The first of its call: one violation."""
    critical: Bools
    """The first critical one of its call: acts at once."""


def violations(state: Seen, span: U64, critical: Bools) -> Violations:
    """Tell denials apart by their calls; the memory is changed in place.

    Args:
        state: the memory of denied calls; a denial whose call it has forgotten counts again.
        span: a hash of tenant, actor, trace and span of each denial's call, not 0, shape (n,), in order.
        critical: which denials are of critical severity, shape (n,).
    """
    n = len(span)
    counted, acts = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    # Both questions go to the memory in the order of the denials: any cut of them asks the same.
    questions = np.zeros(n + int(critical.sum()), dtype=np.uint64)
    place = np.arange(n) + np.cumsum(critical) - critical
    questions[place] = span
    questions[place[critical] + 1] = combine(span[critical], np.full(int(critical.sum()), _CRITICAL))
    first = first_times(state, questions)
    counted[:] = first[place]
    acts[critical] = first[place[critical] + 1]
    return Violations(counted, acts)


def noisy_classifier(false_rate: float, *, warn: float = 1e4, trip: float = 1e6) -> FailureParams:
    """Settings of the e-detector for a classifier's hits: null 2 f, and one hit of a trace in a day.

    Args:
        false_rate: f, the share of harmless actions that the classifier takes for violations.
        warn: suspect from here on.
        trip: trip from here on.

    Raises:
        ConfigurationError: f is above 5%, or so small that 2 f is below 1 / ``warn``.
    """
    if not 0.5 / warn <= false_rate <= LARGEST_FALSE_RATE:
        raise ConfigurationError(
            f"a classifier has a stated false rate of {false_rate!r}, expected {0.5 / warn:g} to "
            f"{LARGEST_FALSE_RATE:g}: state a larger one if it is better than that, and do not act on a worse one."
        )
    return FailureParams(known_null=2.0 * false_rate, warn=warn, trip=trip, cap=1, cap_window_us=_DAY_US)
