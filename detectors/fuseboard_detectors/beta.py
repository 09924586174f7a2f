"""Quantiles of the Beta distribution from a routine that gives the same bits on every machine."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from fuseboard_detectors.arithmetic import Floats, Ints, exp, ln, ln_gamma

if TYPE_CHECKING:
    from collections.abc import Sequence

_BISECTIONS = 16
_NEWTON_STEPS = 4
_FRACTION_TERMS = 90
_TINY = 1e-300
_GRID = 16
"""Steps per failure in the table at the effective number of calls; interpolation errs by less than 2e-4, relative."""
_BLOCK = 16
"""So many numbers of learned calls are tabled at a time: making a table costs nearly the same for one as for these."""


def regularized_incomplete_beta(x: Floats, a: Floats, b: Floats) -> Floats:
    """I_x(a, b), the distribution function of Beta(a, b), for 0 < x < 1.

    The continued fraction of Abramowitz and Stegun 26.5.8 evaluated by Lentz's method (Press et al., Numerical
    Recipes, 6.4), always for the same number of terms: enough for a, b up to several thousand.
    """
    mirrored = x > (a + 1.0) / (a + b + 2.0)
    u = np.where(mirrored, 1.0 - x, x)
    p = np.where(mirrored, b, a)
    q = np.where(mirrored, a, b)
    front = exp(p * ln(u) + q * ln(1.0 - u) + ln_gamma(p + q) - ln_gamma(p) - ln_gamma(q)) / p
    value = front * _beta_fraction(u, p, q)
    return np.where(mirrored, 1.0 - value, value)


def _beta_fraction(x: Floats, a: Floats, b: Floats) -> Floats:
    c = np.ones_like(x)
    d = 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    fraction = d
    for m in range(1, _FRACTION_TERMS + 1):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d = 1.0 / _away_from_zero(1.0 + even * d)
        c = _away_from_zero(1.0 + even / c)
        fraction = fraction * d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d = 1.0 / _away_from_zero(1.0 + odd * d)
        c = _away_from_zero(1.0 + odd / c)
        fraction = fraction * d * c
    return fraction


def _away_from_zero(x: Floats) -> Floats:
    return np.where(np.abs(x) < _TINY, _TINY, x)


def beta_quantile(probability: float, a: Floats, b: Floats) -> Floats:
    """The x with I_x(a, b) = probability, elementwise, by a fixed number of bisections and Newton steps."""
    low = np.zeros_like(a)
    high = np.ones_like(a)
    for _ in range(_BISECTIONS):
        middle = (low + high) * 0.5
        below = regularized_incomplete_beta(middle, a, b) < probability
        low = np.where(below, middle, low)
        high = np.where(below, high, middle)
    x = (low + high) * 0.5
    normaliser = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b)
    for _ in range(_NEWTON_STEPS):
        density = exp((a - 1.0) * ln(x) + (b - 1.0) * ln(1.0 - x) + normaliser)
        step = (regularized_incomplete_beta(x, a, b) - probability) / _away_from_zero(density)
        x = np.minimum(np.maximum(x - step, low), high)
    return x


class LearnedNull:
    """The null p0 of a key: an upper quantile of its failure rate's posterior, never surer than a number of calls.

    With n learned calls of which f failed, and never more than ``effective`` of them believed (real failures come in
    bursts, so history counts for less than it seems), the posterior is Beta(alpha + f', beta + n' - f') with
    n' = min(n, effective) and f' = f n' / n. Whole blocks of ``period`` calls are learned at a time, so nearly every
    question is answered from a table made once; a value between two entries is interpolated linearly. Other numbers
    of calls come up when failures are taken back; their tables are made when they do.
    """

    def __init__(
        self, alpha: float, beta: float, *, quantile: float, floor: float, effective: int, period: int
    ) -> None:
        self.alpha, self.beta = alpha, beta
        self.quantile, self.floor, self.effective = quantile, floor, effective
        self._rows: dict[int, Floats] = {}
        self._add_rows(range(0, effective, period))
        failures = np.arange(effective * _GRID + 1, dtype=np.float64) / _GRID
        self._full = self._table(np.full(len(failures), float(effective)), failures)

    def _table(self, calls: Floats, failures: Floats) -> Floats:
        values = beta_quantile(self.quantile, self.alpha + failures, self.beta + (calls - failures))
        return np.maximum(values, self.floor)

    def _add_rows(self, numbers: Sequence[int]) -> None:
        """Table every number of failures for these numbers of calls."""
        sizes = [n + 1 for n in numbers]
        failures = np.concatenate([np.arange(size, dtype=np.float64) for size in sizes])
        values = self._table(np.repeat(np.array(numbers, dtype=np.float64), sizes), failures)
        self._rows.update(zip(numbers, np.split(values, np.cumsum(sizes)[:-1]), strict=True))

    def p0(self, learned_calls: Ints, learned_failures: Ints) -> Floats:
        """The null for each key, shape (k,), from its learned calls and failures."""
        result = np.empty(len(learned_calls), dtype=np.float64)
        full = learned_calls >= self.effective
        if full.any():
            scaled = learned_failures[full] * float(self.effective * _GRID) / learned_calls[full]
            cell = np.minimum(np.floor(scaled), len(self._full) - 2).astype(np.int64)
            part = scaled - cell
            result[full] = self._full[cell] * (1.0 - part) + self._full[cell + 1] * part
        numbers = np.unique(learned_calls[~full]).tolist()
        blocks = {n // _BLOCK * _BLOCK for n in numbers if n not in self._rows}
        for first in sorted(blocks):
            self._add_rows([n for n in range(first, first + _BLOCK) if n not in self._rows])
        for n in numbers:
            chosen = np.flatnonzero(learned_calls == n)
            result[chosen] = self._rows[n][learned_failures[chosen]]
        return result


@lru_cache(maxsize=64)
def learned_null(alpha: float, beta: float, quantile: float, floor: float, effective: int, period: int) -> LearnedNull:
    """A shared `LearnedNull` for these settings: building its tables takes about half a second."""
    return LearnedNull(alpha, beta, quantile=quantile, floor=floor, effective=effective, period=period)
