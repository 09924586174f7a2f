"""Quantities as people write them in a rules file: durations, shares, targets, amounts of money.

All results are exact: whole microseconds, whole micro-dollars, and shares as fractions, so that a limit of 0.1% is one
in a thousand and not the nearest binary number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

_UNITS: Final = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_NUMBER = r"[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,2})?"
_SHARE = re.compile(rf"({_NUMBER})\s*(%?)")
_TARGET = re.compile(rf"(>=|<=|>|<)\s*({_NUMBER})\s*(%?)")
_LONGEST_US: Final = 366 * 86_400_000_000
_MOST_USD: Final = Fraction(10**9)
_PARTS: Final = 10**8
"""Shares are multiples of one of so many parts: a count times this fits into eight bytes."""
_LONGEST: Final = 64
"""Characters of a quantity."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a measured value should be: ``>99.5%`` is ``Target(">", Fraction(199, 200))``."""

    relation: str
    """``>``, ``>=``, ``<`` or ``<=``."""
    value: Fraction
    percent: bool
    """Whether it was written as a percentage."""

    @property
    def upwards(self) -> bool:
        """Whether more is better."""
        return self.relation.startswith(">")

    def met_by(self, value: Fraction) -> bool:
        """Whether a value is as it should be."""
        match self.relation:
            case ">":
                return value > self.value
            case ">=":
                return value >= self.value
            case "<":
                return value < self.value
            case _:
                return value <= self.value

    def __str__(self) -> str:
        return f"{self.relation}{_written(self.value, percent=self.percent)}"


@dataclass(frozen=True, slots=True)
class BurnWindow:
    """A share of a budget that may be spent within a long and, at the same rate, within a short window."""

    share: Fraction
    long_us: int
    short_us: int

    def __str__(self) -> str:
        return f"{share_text(self.share)}/{duration_text(self.long_us)}/{duration_text(self.short_us)}"


def duration_us(given: object) -> int:
    """Microseconds of ``30s``, ``1h30m``, ``7d``.

    Raises:
        ValueError: It is no duration, or not between a millisecond and a year.
    """
    if not isinstance(given, str) or len(given) > _LONGEST or not _DURATION.fullmatch(given.strip()):
        raise ValueError(f"expected a duration with its unit, such as 30s, 5m, 1h or 7d, found {given!r}")
    total = sum(Fraction(number) * _UNITS[unit] for number, unit in _PART.findall(given))
    if not 1_000 <= total <= _LONGEST_US or total.denominator != 1:
        raise ValueError(f"expected a duration from 1ms to 366d, found {given!r}")
    return int(total)


def duration_text(duration: int) -> str:
    """Microseconds in the largest unit in which they are a whole number: ``30s``, ``90m``."""
    unit = next((name for name, size in reversed(_UNITS.items()) if duration % size == 0), None)
    return f"{duration / 1000:g}ms" if unit is None else f"{duration // _UNITS[unit]}{unit}"


def share_text(value: Fraction) -> str:
    """A share as a percentage."""
    return _written(value, percent=True)


def usd_text(micros: int) -> str:
    """Micro-dollars in dollars."""
    whole, rest = divmod(micros, 1_000_000)
    return f"{whole}.{f'{rest:06d}'.rstrip('0').ljust(2, '0')}"


def share(given: object) -> Fraction:
    """``5%`` or ``0.05`` as a fraction of one.

    Raises:
        ValueError: It is no such number, not from 0 to 1, or has more than six decimals of a percent.
    """
    value = _number(given, "a share, such as 5% or 0.05")
    if not 0 <= value <= 1:
        raise ValueError(f"expected a share from 0% to 100%, found {given!r}")
    if _PARTS % value.denominator:
        raise ValueError(f"expected a share with at most six decimals of a percent, found {given!r}")
    return value


def target(given: object) -> Target:
    """``>99.5%``, ``<0.02``, ``>=-1%``.

    Raises:
        ValueError: It has no relation or no number, or more than eight decimals, six of a percentage.
    """
    found = _TARGET.fullmatch(given.strip()) if isinstance(given, str) and len(given) <= _LONGEST else None
    if found is None:
        raise ValueError(f"expected a target such as >99.5% or <0.02, found {given!r}")
    relation, number, percent = found.groups()
    value = Fraction(number) / (100 if percent else 1)
    if _PARTS % value.denominator or abs(value) > _MOST_USD:
        raise ValueError(f"expected a target with at most eight decimals, six of a percentage, found {given!r}")
    return Target(relation, value, percent=bool(percent))


def micro_usd(given: object) -> int:
    """Dollars as whole micro-dollars.

    Raises:
        ValueError: It is no number, not above 0, finer than a micro-dollar, or more than a billion.
    """
    value = _number(given, "dollars, such as 5.00", percent=False)
    micros = value * 1_000_000
    if not 0 < value <= _MOST_USD or micros.denominator != 1:
        raise ValueError(f"expected dollars from 0.000001 to 1e9, found {given!r}")
    return int(micros)


def burn_window(given: object) -> BurnWindow:
    """``5%/5m/30s``: five percent of the budget within five minutes, and that fast over the last 30 s.

    Raises:
        ValueError: It has not these three parts, or the short window is not shorter.
    """
    parts = given.split("/") if isinstance(given, str) else []
    if len(parts) != 3:
        raise ValueError(f"expected share/long window/short window, such as 5%/5m/30s, found {given!r}")
    found = BurnWindow(share(parts[0]), duration_us(parts[1]), duration_us(parts[2]))
    if not found.share > 0 or found.short_us >= found.long_us or found.long_us % found.short_us:
        raise ValueError(
            f"expected a share above 0 and a short window that goes into the long one several times, found {given!r}"
        )
    return found


def _number(given: object, what: str, *, percent: bool = True) -> Fraction:
    if isinstance(given, bool):
        raise ValueError(f"expected {what}, found {given!r}")
    # The text that a number was written as decides, not the nearest binary number.
    text = repr(given) if isinstance(given, int | float) else given
    found = _SHARE.fullmatch(text.strip()) if isinstance(text, str) and len(text) <= _LONGEST else None
    if found is None or (found[2] and not percent):
        raise ValueError(f"expected {what}, found {given!r}")
    value = Fraction(found[1])
    return value / 100 if found[2] else value


def _written(value: Fraction, *, percent: bool) -> str:
    number = float(value * 100 if percent else value)
    return f"{number:g}{'%' if percent else ''}"
