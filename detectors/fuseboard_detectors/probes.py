"""The sequential probability ratio test that decides whether a half-open breaker may close.

Every probe is one Bernoulli observation. The test weighs "the target is as good as its own baseline" (failure
probability ``p0``) against "it is still broken" (failure probability ``p1`` > ``p0``) and stops as soon as one of them
is 99 times likelier than the other (Wald, "Sequential Tests of Statistical Hypotheses", Annals of Mathematical
Statistics 16(2), 1945: with error rates alpha = beta = 1% the bounds of the likelihood ratio are
(1 - beta) / alpha = 99 and beta / (1 - alpha) = 1/99).

``p1`` follows the baseline: ``max(0.3, p0's odds times 16)``. A fixed 0.3 would turn the test round for a target whose
normal failure rate lies above it, and successes would then speak for "still broken".

What that means in probes, at the default settings:

==========  ======  =============  ==============  =============================
p0          p1      clean to PASS  failed to FAIL  PASS when the true rate is ``p0``
==========  ======  =============  ==============  =============================
0.5%        30%     14             2               99.8%
2%          30%     14             2               97.9%
5%          45.7%   9              3               99.5%
10%         64%     6              3               99.3%
30%         87.3%   3              5               99.4%
50%         94.1%   3              8               99.3%
80%         98.5%   2              23              94.4%
88.4%       99.2%   2              40              78.5%
90%         99.3%   2              never: 40 end   74.3%
94%         99.6%   2              never: 40 end   47.5%
99%         99.94%  2              never: 40 end   6.1%
==========  ======  =============  ==============  =============================

* Clean probes alone always lead to PASS, after 2 to 14 of them, whatever the baseline (14 only for baselines between
  0.32% and 2.83%): there is no ``p0`` at which 40 clean probes do not suffice.
* Above p0 = 88.43% no run of 40 failures reaches the upper bound any more. The test then ends UNDECIDED, which reopens
  the breaker just as FAIL does, so nothing broken is let back in; it only takes all 40 probes.
* A target whose *normal* failure rate is that high recovers more slowly: one half-open period closes it with
  probability 94% at 80%, 74% at 90%, 47% at 94% and 6% at 99%; otherwise it is tried again after a longer cooldown,
  as a fresh test. None is shut out for ever, but a baseline above 94% mostly fails to recover within one period.

Only ``+ - * /`` and comparisons are used, in the order of the observations: the result is the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

__all__ = ["ProbeTest", "ProbeVerdict", "alternative"]


class ProbeVerdict(StrEnum):
    """What a probe test says after the results so far."""

    CONTINUE = "CONTINUE"
    """More results are needed."""
    PASS = "PASS"
    """As good as the baseline: close."""
    FAIL = "FAIL"
    """Still broken: reopen."""
    UNDECIDED = "UNDECIDED"
    """The limit of results is reached without a decision: reopen."""


def alternative(p0: float, *, floor: float = 0.3, odds: float = 16.0) -> float:
    """Return the failure probability ``p1`` to test the baseline ``p0`` against.

    Args:
        p0: The baseline's failure probability, strictly between 0 and 1.
        floor: The smallest ``p1``.
        odds: The factor on the odds of ``p0``, above 1.

    Returns:
        ``max(floor, odds * o / (1 + odds * o))`` with ``o = p0 / (1 - p0)``; always above ``p0``.

    Raises:
        ValueError: An argument is out of range, or ``p0`` is so near 1 that no number lies between.
    """
    if not (0.0 < p0 < 1.0 and 0.0 < floor < 1.0 and odds > 1.0):
        raise ValueError(
            f"a probe test needs 0 < p0 < 1, 0 < floor < 1 and odds > 1, not p0={p0!r}, floor={floor!r}, odds={odds!r}"
        )
    # odds * o / (1 + odds * o), multiplied out: no division by the rounded 1 - p0.
    scaled = odds * p0
    p1 = max(floor, scaled / (1.0 - p0 + scaled))
    if not p0 < p1 < 1.0:
        raise ValueError(f"no failure probability lies between p0={p0!r} and 1: lower the baseline's ceiling below 1")
    return p1


@dataclass(frozen=True, slots=True)
class ProbeTest:
    """One half-open period's test: an immutable state, advanced by :meth:`observe`.

    >>> test = ProbeTest.start(0.005)
    >>> for _ in range(14):
    ...     test = test.observe(True)
    >>> test.verdict, test.ok, test.failed
    (<ProbeVerdict.PASS: 'PASS'>, 14, 0)
    >>> ProbeTest.start(0.005).observe(False).observe(False).verdict
    <ProbeVerdict.FAIL: 'FAIL'>
    """

    p0: float
    """Failure probability of the baseline."""
    p1: float
    """Failure probability of "still broken"; above ``p0``."""
    bound: float = 99.0
    """The likelihood ratio (or its inverse) that decides: ``(1 - error) / error``."""
    limit: int = 40
    """Results after which an undecided test ends."""
    ratio: float = 1.0
    """Likelihood of the results under ``p1`` over that under ``p0``."""
    ok: int = 0
    """Successful probes seen."""
    failed: int = 0
    """Failed probes seen."""

    @classmethod
    def start(
        cls, p0: float, *, floor: float = 0.3, odds: float = 16.0, error: float = 0.01, limit: int = 40
    ) -> ProbeTest:
        """Return a test of the baseline ``p0`` that has seen nothing yet.

        Args:
            p0: The baseline's failure probability, strictly between 0 and 1.
            floor: See :func:`alternative`.
            odds: See :func:`alternative`.
            error: Both error rates of the test, between 0 and 0.5.
            limit: Results after which an undecided test ends, at least 1.

        Raises:
            ValueError: An argument is out of range.
        """
        if not 0.0 < error < 0.5 or limit < 1:
            raise ValueError(f"a probe test needs 0 < error < 0.5 and limit >= 1, not error={error!r}, limit={limit!r}")
        return cls(p0=p0, p1=alternative(p0, floor=floor, odds=odds), bound=(1.0 - error) / error, limit=limit)

    def observe(self, ok: bool) -> ProbeTest:
        """Return the test after one more result; a test that has decided stays as it is."""
        if self.verdict is not ProbeVerdict.CONTINUE:
            return self
        if ok:
            return replace(self, ratio=self.ratio * ((1.0 - self.p1) / (1.0 - self.p0)), ok=self.ok + 1)
        return replace(self, ratio=self.ratio * (self.p1 / self.p0), failed=self.failed + 1)

    @property
    def results(self) -> int:
        """How many results have been seen."""
        return self.ok + self.failed

    @property
    def verdict(self) -> ProbeVerdict:
        """What the results so far say."""
        if self.ratio >= self.bound:
            return ProbeVerdict.FAIL
        if self.ratio * self.bound <= 1.0:
            return ProbeVerdict.PASS
        return ProbeVerdict.UNDECIDED if self.results >= self.limit else ProbeVerdict.CONTINUE
