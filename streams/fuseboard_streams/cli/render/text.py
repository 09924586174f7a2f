"""Small pieces of text: colours, relative times, durations, money, aligned tables."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Style = Literal["", "dim", "bold", "red", "green", "yellow", "blue", "magenta", "cyan", "red bold", "green bold"]

_CODES: Final = {
    "dim": "2",
    "bold": "1",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "red bold": "31;1",
    "green bold": "32;1",
}
_SECOND: Final = 1_000_000
_NARROWEST: Final = 6


@dataclass(frozen=True, slots=True)
class Paint:
    """Adds ANSI colours, or nothing at all when output goes to a file or a pipe."""

    enabled: bool = False

    def __call__(self, text: str, style: Style = "") -> str:
        """Return ``text`` in ``style``."""
        if not self.enabled or not style or not text:
            return text
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


PLAIN: Final = Paint()


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table: its text and its colour."""

    text: str
    style: Style = ""


def printable(text: str) -> str:
    """Return ``text`` with control and bidirectional characters escaped.

    Field values come from whoever can write to the topics; they must not be able to drive the reader's terminal.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def width(text: str) -> int:
    """Return how many terminal columns ``text`` takes (wide East Asian characters take two)."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def clip(text: str, columns: int) -> str:
    """Return ``text`` cut to ``columns`` terminal columns, with an ellipsis where something is missing."""
    if width(text) <= columns:
        return text
    kept = ""
    for char in text:
        if width(kept + char) > columns - 1:
            break
        kept += char
    return kept + "…"


def duration(micros: int) -> str:
    """Return a length of time in the largest unit that reads well: ``840 µs``, ``12 ms``, ``1.2 s``, ``3 min``."""
    size = abs(micros)
    if size < 1_000:
        return f"{micros} µs"
    if size < _SECOND:
        return f"{round(micros / 1_000)} ms"
    if size < 10 * _SECOND:
        return f"{micros / _SECOND:.1f} s"
    if size < 120 * _SECOND:
        return f"{round(micros / _SECOND)} s"
    if size < 5_400 * _SECOND:
        return f"{round(micros / _SECOND / 60)} min"
    if size < 172_800 * _SECOND:
        return f"{round(micros / _SECOND / 3_600)} h"
    return f"{round(micros / _SECOND / 86_400)} d"


def ago(then: int, now: int) -> str:
    """Return where ``then`` lies relative to ``now`` (both µs since the epoch): ``12 s ago``, ``in 18 s``, ``now``."""
    gap = now - then
    if abs(gap) < _SECOND:
        return "now"
    # Whole seconds: the tenths of an age change faster than anybody reads.
    whole = round(gap / _SECOND)
    text = f"{abs(whole)} s" if abs(whole) < 120 else duration(abs(gap))
    return f"{text} ago" if gap > 0 else f"in {text}"


def clock(micros: int, *, date: bool = False) -> str:
    """Return a time of day in UTC with milliseconds, with the date when asked for."""
    try:
        moment = datetime.fromtimestamp(micros // _SECOND, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{micros} µs"
    text = f"{moment:%H:%M:%S}.{micros % _SECOND // 1_000:03d}"
    return f"{moment:%Y-%m-%d} {text}" if date else text


def money(micros: int) -> str:
    """Return integer micro-dollars as dollars, with as many decimals as are not zero (at least two)."""
    sign, size = ("-" if micros < 0 else ""), abs(micros)
    decimals = f"{size % 1_000_000:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}${size // 1_000_000:,}.{decimals}"


def rate(per_second: float) -> str:
    """Return a rate per second with three significant digits: ``0.4 /s``, ``812 /s``, ``51.2 k/s``, ``1.20 M/s``."""
    for limit, unit in ((1_000_000.0, " M/s"), (1_000.0, " k/s")):
        if per_second >= limit:
            return f"{_digits(per_second / limit)}{unit}"
    return f"{_digits(per_second)} /s"


def _digits(value: float) -> str:
    """Return a non-negative number below a thousand with three significant digits at most."""
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 or value < 1 else f"{value:.2f}"


def size(count: int) -> str:
    """Return a number of bytes: ``812 B``, ``51.2 kB``, ``4.00 MB``."""
    for limit, unit in ((1_000_000, " MB"), (1_000, " kB")):
        if count >= limit:
            return f"{_digits(count / limit)}{unit}"
    return f"{count} B"


def percent(ratio: float) -> str:
    """Return a ratio between 0 and 1 as a percentage with at most two decimals."""
    return f"{100 * ratio:.2f}".rstrip("0").rstrip(".") + "%"


def plural(count: int, noun: str) -> str:
    """Return ``1 event`` or ``1,204 events``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[Cell | str]],
    *,
    paint: Paint = PLAIN,
    right: frozenset[int] = frozenset(),
    columns: int | None = None,
) -> list[str]:
    """Return an aligned table, one string per line.

    Args:
        header: The column titles.
        rows: One sequence of cells per row, as long as the header.
        paint: Adds the colours.
        right: The columns that are aligned to the right (numbers).
        columns: The terminal's width: the widest columns are cut so that a line fits; ``None`` cuts nothing.
    """
    cells = [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in rows]
    cells = [[Cell(printable(c.text), c.style) for c in row] for row in cells]
    widths = [max([width(title), *(width(row[i].text) for row in cells)]) for i, title in enumerate(header)]
    if columns is not None:
        room = columns - 2 * (len(widths) - 1)
        while sum(widths) > room and max(widths) > _NARROWEST:
            widths[widths.index(max(widths))] -= 1
    lines = [[Cell(title, "dim") for title in header], *cells]
    return [_line(row, widths, right, paint) for row in lines]


def _line(row: Sequence[Cell], widths: Sequence[int], right: frozenset[int], paint: Paint) -> str:
    """Return one line of a table without blanks at its end."""
    parts = []
    last = len(row) - 1
    for i, cell in enumerate(row):
        text = clip(cell.text, widths[i])
        gap = " " * (widths[i] - width(text))
        if i in right:
            parts.append(gap + paint(text, cell.style))
        else:
            parts.append(paint(text, cell.style) + ("" if i == last else gap))
    return "  ".join(parts).rstrip()
