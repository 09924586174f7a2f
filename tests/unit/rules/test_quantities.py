"""Durations, shares, targets and dollars, exact."""

from __future__ import annotations

from fractions import Fraction

import pytest

from fuseboard_streams.rules.quantities import BurnWindow, burn_window, duration_us, micro_usd, share, target


@pytest.mark.parametrize(
    ("text", "us"),
    [("30s", 30_000_000), ("1h30m", 5_400_000_000), ("1.5s", 1_500_000), ("250ms", 250_000), ("7d", 604_800_000_000)],
)
def test_durations(text: str, us: int) -> None:
    assert duration_us(text) == us


@pytest.mark.parametrize("given", ["", "30", 30, "s", "-5s", "5 m", "0s", "367d", "1w", None, True, "0.5ms"])
def test_what_is_no_duration(given: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        duration_us(given)


@pytest.mark.parametrize(
    ("given", "value"), [("0.1%", Fraction(1, 1000)), (0.1, Fraction(1, 10)), (1, Fraction(1)), ("100 %", Fraction(1))]
)
def test_shares_are_what_was_written(given: object, value: Fraction) -> None:
    assert share(given) == value


@pytest.mark.parametrize("given", ["101%", -0.1, "a", True, None, "5%%", "", [1]])
def test_what_is_no_share(given: object) -> None:
    with pytest.raises(ValueError, match="expected a share"):
        share(given)


@pytest.mark.parametrize(
    ("text", "met", "missed"),
    [
        (">99.5%", Fraction(9951, 10_000), Fraction(995, 1000)),
        ("<0.02", Fraction(19, 1000), Fraction(1, 50)),
        (">=-1%", Fraction(-1, 100), Fraction(-11, 1000)),
        ("<= 5", Fraction(5), Fraction(51, 10)),
    ],
)
def test_targets(text: str, met: Fraction, missed: Fraction) -> None:
    found = target(text)
    assert found.met_by(met)
    assert not found.met_by(missed)
    assert target(str(found)) == found


@pytest.mark.parametrize("given", ["95%", ">", "=5", 5, ">a", None])
def test_what_is_no_target(given: object) -> None:
    with pytest.raises(ValueError, match="expected a target"):
        target(given)


@pytest.mark.parametrize(("given", "micros"), [(5.0, 5_000_000), (0.1, 100_000), ("0.000001", 1), (5, 5_000_000)])
def test_dollars_are_exact(given: object, micros: int) -> None:
    assert micro_usd(given) == micros


@pytest.mark.parametrize("given", [0, -1, "5%", "1e-7", 1e10, float("inf"), float("nan"), None, True])
def test_what_is_no_amount(given: object) -> None:
    with pytest.raises(ValueError, match="expected dollars"):
        micro_usd(given)


def test_burn_windows() -> None:
    assert burn_window("5%/5m/30s") == BurnWindow(Fraction(1, 20), 300_000_000, 30_000_000)


@pytest.mark.parametrize("given", ["5%/5m", "0%/5m/30s", "5%/30s/5m", "5%/5m/7s", 5, "5%/5m/30s/1s", "x/5m/30s"])
def test_what_is_no_burn_window(given: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        burn_window(given)


@pytest.mark.parametrize("given", ["33.3333333%", "0.333333333", 1e-9, "1e-9%"])
def test_a_share_that_is_too_fine_to_be_counted_with(given: object) -> None:
    with pytest.raises(ValueError, match="expected a share with at most six decimals of a percent"):
        share(given)
    with pytest.raises(ValueError, match="expected a target with at most eight decimals, six of a percentage"):
        target(f"<{given}".replace("1e-09", "0.000000001"))


@pytest.mark.parametrize("given", ["33.333333%", "0.33333333", "0.000001%"])
def test_the_finest_share(given: str) -> None:
    assert (share(given) * 10**8).denominator == 1
    assert target(f"<{given}").value == share(given)


def test_no_quantity_is_a_page_long() -> None:
    for reader, text in ((share, "0.{}"), (target, "<{}"), (duration_us, "{}s"), (micro_usd, "{}")):
        with pytest.raises(ValueError, match="expected"):
            reader(text.format("0" * 5_000))
