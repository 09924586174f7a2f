"""The doctor's findings, for people."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from fuseboard_streams.cli.render.text import PLAIN, Paint, plural, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_streams.doctor import Check

_WIDTH: Final = 100


def checks_lines(checks: Sequence[Check], paint: Paint = PLAIN, columns: int | None = None) -> list[str]:
    """Return the table of checks with what to do below each that failed, and a verdict.

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
        mark = paint("ok", "green") if check.ok else paint("!!", "red bold")
        first, *rest = textwrap.wrap(printable(check.detail), room) or [""]
        lines.append(f"{mark}  {paint(f'{check.name:<{wide}}', 'bold')}  {first}")
        lines += [indent + line for line in rest]
        if not check.ok and check.todo:
            lines += [indent + paint(line, "yellow") for line in textwrap.wrap("→ " + printable(check.todo), room)]
    failed = sum(not check.ok for check in checks)
    verdict = f"{plural(failed, 'check')} failed" if failed else f"All {len(checks)} checks passed"
    return [*lines, "", paint(verdict, "red bold" if failed else "green")]
