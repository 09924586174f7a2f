"""What nothing is held back for yet: targets on their way to a trip, and objectives, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fuseboard_streams.cli.objective_states import state_of, words_of
from fuseboard_streams.cli.render.lines import who
from fuseboard_streams.cli.render.text import Cell, Paint, ago, plural, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_schemas.records import NearTrip, Signal
    from fuseboard_streams.cli.render.text import Style

BAR: Final = 16
"""Length of a bar, in characters."""
_MOST_OBJECTIVES: Final = 8
_STYLES: Final[dict[str, Style]] = {"violated": "red bold", "unknown": "yellow", "met": "green"}


def bar(evidence_log10: float, trip_log10: float, length: int = BAR) -> str:
    """Return how far evidence has come to its level, on a logarithmic scale from 1: ``██████░░░░``."""
    share = min(max(evidence_log10 / trip_log10, 0.0), 1.0) if trip_log10 > 0.0 else 1.0
    # Full means that the level is reached, and not that it nearly is.
    full = length if share >= 1.0 else min(round(share * length), length - 1)
    return "█" * full + "░" * (length - full)


def style_of(evidence_log10: float, trip_log10: float) -> Style:
    """Return the colour of evidence."""
    missing = trip_log10 - evidence_log10
    return "red bold" if missing <= 1.0 else "yellow" if missing <= 2.5 else ""


def nearest_table(found: Sequence[NearTrip], paint: Paint, columns: int | None) -> list[str]:
    """Return the targets nearest to a trip as bars; nothing where there are none."""
    if not found:
        return []
    rows = [
        (
            Cell(bar(each.evidence_log10, each.trip_log10), style_of(each.evidence_log10, each.trip_log10)),
            f"10^{each.evidence_log10:.2f} of 10^{each.trip_log10:g}",
            f"{each.failures:,}/{each.calls:,}",
            who(each.tenant, each.actor, each.tool),
        )
        for each in found
    ]
    title = paint("nearest to a trip", "bold")
    return [
        title,
        *table(("", "evidence", "failed", "target"), rows, paint=paint, right=frozenset({2}), columns=columns),
    ]


def objectives_table(states: Sequence[Signal], now: int, paint: Paint, columns: int | None) -> list[str]:
    """Return the newest state of each objective and target, those violated first; nothing where nothing was said."""
    if not states:
        return []
    counts = [(name, sum(state_of(each) == name for each in states)) for name in _STYLES]
    title = "objectives: " + ", ".join(f"{count:,} {name}" for name, count in counts if count)
    rows = [
        (
            Cell(state_of(each), _STYLES[state_of(each)]),
            each.rule or each.metric,
            who(each.tenant, each.actor, each.tool),
            ago(each.ts, now),
            words_of(each),
        )
        for each in states[:_MOST_OBJECTIVES]
    ]
    header = ("state", "objective", "target", "said", "bound")
    more = len(states) - len(rows)
    lines = [paint(title, "bold"), *table(header, rows, paint=paint, columns=columns)]
    return [*lines, paint(f"and {plural(more, 'other')}; --json has all", "dim")] if more else lines
