"""Elementary functions built from + - x / alone, so that every machine computes the same bits.

The mathematical libraries of two machines, and the scalar and the vector routine of one, may differ in the last bit
of ``pow``, ``exp`` and ``log``. A decision that is replayed elsewhere must not. IEEE 754 fixes the result of addition,
subtraction, multiplication and division, and ``frexp``/``ldexp`` only move the exponent; everything here uses nothing
else, in a fixed order of operations and for a fixed number of iterations.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

LN2 = 0.6931471805599453
LN10 = 2.302585092994046
_LN2_HIGH = 0.693147180369123816490
_LN2_LOW = 1.90821492927058770002e-10
_SQRT_HALF = 0.7071067811865476
_HALF_LN_2PI = 0.9189385332046727
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
"""Coefficients of the Stirling series of ln gamma (Abramowitz and Stegun 6.1.41)."""


def power(base: Floats, exponent: Ints) -> Floats:
    """Raise to non-negative integer powers by repeated squaring.

    Args:
        base: shape (k, m).
        exponent: shape (k,), one exponent for each row, not negative.

    Returns:
        ``base ** exponent[:, None]``, shape (k, m). A row's result does not depend on the other rows.
    """
    result = np.ones_like(base)
    square = base
    remaining = exponent
    while remaining.any():
        odd = (remaining & 1).astype(np.bool_)
        result = np.where(odd[:, None], result * square, result)
        remaining = remaining >> 1
        if remaining.any():
            square = square * square
    return result


def ln(x: Floats) -> Floats:
    """Natural logarithm of positive numbers, to about 1e-15 relative.

    The mantissa m in [sqrt(1/2), sqrt(2)) gives ln m = 2 artanh((m - 1) / (m + 1)), a series in powers of at most 0.03.
    """
    mantissa, exponent = np.frexp(x)
    low = mantissa < _SQRT_HALF
    mantissa = np.where(low, mantissa * 2.0, mantissa)
    exponent = np.where(low, exponent - 1, exponent).astype(np.float64)
    z = (mantissa - 1.0) / (mantissa + 1.0)
    square = z * z
    series = np.zeros_like(z)
    for k in range(23, 0, -2):
        series = series * square + 1.0 / k
    return exponent * _LN2_HIGH + (2.0 * z * series + exponent * _LN2_LOW)


def exp(x: Floats) -> Floats:
    """The exponential function for |x| < 700, to about 1e-15 relative."""
    k = np.floor(x / LN2 + 0.5)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    series = np.ones_like(r)
    for n in range(16, 0, -1):
        series = 1.0 + series * r / n
    return np.ldexp(series, k.astype(np.int32))


def log10(x: Floats) -> Floats:
    """Decimal logarithm of positive numbers."""
    return ln(x) / LN10


def ln_gamma(x: Floats) -> Floats:
    """Logarithm of the gamma function for x > 0: Stirling's series after shifting the argument above 10."""
    shift = np.zeros_like(x)
    product = np.ones_like(x)
    for _ in range(10):
        small = x + shift < 10.0
        product = np.where(small, product * (x + shift), product)
        shift = np.where(small, shift + 1.0, shift)
    y = x + shift
    inverse = 1.0 / y
    square = inverse * inverse
    series = np.zeros_like(y)
    for coefficient in reversed(_STIRLING):
        series = series * square + coefficient
    return (y - 0.5) * ln(y) - y + _HALF_LN_2PI + series * inverse - ln(product)
