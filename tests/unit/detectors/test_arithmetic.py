"""The elementary functions against the mathematical library, and against themselves in other chunks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import special

from fuseboard_detectors.arithmetic import Floats, exp, ln, ln_gamma, log10, power

RNG = np.random.default_rng(20261123)
POSITIVE = np.concatenate((10.0 ** RNG.uniform(-300, 300, 4000), RNG.uniform(0.5, 2.0, 4000), [1.0, 5e-324, 1e308]))
EXPONENTS = RNG.uniform(-690, 690, 4000)
GAMMA = np.concatenate((RNG.uniform(1e-3, 3, 3000), 10.0 ** RNG.uniform(0, 6, 3000)))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261123)


def worst(got: Floats, expected: Floats) -> float:
    """The largest relative error."""
    return float(np.max(np.abs(got - expected) / np.maximum(np.abs(expected), 1e-300)))


def test_ln() -> None:
    normal = POSITIVE[(POSITIVE != 1.0)]
    assert worst(ln(normal), np.array([math.log(x) for x in normal.tolist()])) < 2e-15
    assert ln(np.array([1.0]))[0] == 0.0


def test_log10() -> None:
    assert worst(log10(POSITIVE[:4000]), np.array([math.log10(x) for x in POSITIVE[:4000].tolist()])) < 2e-15


def test_exp() -> None:
    assert worst(exp(EXPONENTS), np.array([math.exp(x) for x in EXPONENTS.tolist()])) < 2e-15


def test_ln_gamma() -> None:
    """Absolutely near its zeros at 1 and 2, relatively elsewhere."""
    expected = special.gammaln(GAMMA)
    assert np.max(np.abs(ln_gamma(GAMMA) - expected) / np.maximum(np.abs(expected), 1.0)) < 3e-14


def test_power(rng: np.random.Generator) -> None:
    base = rng.uniform(0.2, 1.0, (500, 5))
    exponent = rng.integers(0, 100, 500)
    expected = np.array([[b**e for b in row] for row, e in zip(base.tolist(), exponent.tolist(), strict=True)])
    assert worst(power(base, exponent), expected) < 1e-13
    assert (power(base, np.zeros(500, dtype=np.int64)) == 1.0).all()


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1001])
def test_power_is_the_same_in_any_chunk(chunk: int, rng: np.random.Generator) -> None:
    """Whatever stands in the other rows: decisions depend on every bit."""
    base = rng.uniform(0.2, 1.0, (2000, 5))
    exponent = rng.integers(0, 10 ** rng.integers(1, 7, 2000))
    whole = power(base, exponent)
    parts = [power(base[i : i + chunk], exponent[i : i + chunk]) for i in range(0, 2000, chunk)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


@pytest.mark.parametrize("function", [ln, exp, log10, ln_gamma])
@pytest.mark.parametrize("chunk", [1, 3, 8, 1001])
def test_functions_are_the_same_in_any_chunk(function: Callable[[Floats], Floats], chunk: int) -> None:
    x = GAMMA[1500:4500] if function is not exp else EXPONENTS[:3000]
    parts = [function(x[i : i + chunk]) for i in range(0, 3000, chunk)]
    assert np.concatenate(parts).tobytes() == function(x).tobytes()


def test_power_is_what_scalar_arithmetic_gives(rng: np.random.Generator) -> None:
    """Python's own floats, squared in the same order, have the same bits."""
    base = rng.uniform(0.2, 1.0, (300, 1))
    exponent = rng.integers(0, 5000, 300)
    for b, e, got in zip(base[:, 0].tolist(), exponent.tolist(), power(base, exponent)[:, 0].tolist(), strict=True):
        result, square, left = 1.0, b, e
        while left:
            if left & 1:
                result *= square
            left >>= 1
            square *= square
        assert result == got
