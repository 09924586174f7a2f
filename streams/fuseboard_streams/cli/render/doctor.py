"""The doctor's findings, for people."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Final

from fuseboard_streams.cli.render.text import PLAIN, Paint, Style, plural, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_streams.doctor import Check

_WIDTH: Final = 100
_MARKS: Final[dict[str, tuple[str, Style]]] = {
    "ok": ("ok", "green"),
    "failed": ("!!", "red bold"),
    "unchecked": ("--", "yellow"),
}


def checks_lines(checks: Sequence[Check], paint: Paint = PLAIN, columns: int | None = None) -> list[str]:
    """Return the table of checks with what to do below each that failed, and a verdict with what was not checked.

    Args:
        checks: The outcomes, in order.
        paint: Adds the colours.
        columns: The terminal's width; ``None`` wraps at 100.
    """
    wide = max((len(check.name) for check in checks), default=0)
    indent = " " * (4 + wide + 2)
    room = max(40, (columns or _WIDTH) - len(indent))
    lines: list[str] = []
    for check in checks:
        mark = paint(*_MARKS[check.status])
        first, *rest = textwrap.wrap(printable(check.detail), room) or [""]
        lines.append(f"{mark}  {paint(f'{check.name:<{wide}}', 'bold')}  {first}")
        lines += [indent + line for line in rest]
        if check.ok is False and check.todo:
            lines += [indent + paint(line, "yellow") for line in textwrap.wrap("→ " + printable(check.todo), room)]
    return [*lines, "", _verdict(checks, paint)]


def _verdict(checks: Sequence[Check], paint: Paint) -> str:
    """Return how many checks failed, passed, and could not be made."""
    counts = Counter(check.status for check in checks)
    failed, passed, left = counts["failed"], counts["ok"], counts["unchecked"]
    if not failed and not left:
        return paint(f"All {passed} checks passed", "green")
    parts = (
        [f"{plural(failed, 'check')} failed", f"{passed} passed"] if failed else [f"{plural(passed, 'check')} passed"]
    )
    parts += [f"{left} could not be made"] if left else []
    return paint(", ".join(parts), "red bold" if failed else "green")
