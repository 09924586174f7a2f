"""Differences between topics and their declaration, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuseboard_streams.cli.render.text import PLAIN, Paint, plural, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_streams.admin import Change


def changes_lines(changes: Sequence[Change], *, applied: bool, where: str, paint: Paint = PLAIN) -> list[str]:
    """Return one line per difference, what a person has to do below it, and a summary.

    Args:
        changes: What differs, with what became of it.
        applied: Whether this is the outcome of ``apply`` and not of ``plan``.
        where: The brokers and the prefix.
        paint: Adds the colours.
    """
    if not changes:
        return [paint(f"All topics on {where} are as declared.", "green")]
    lines, advised = [], set[str]()
    for change in changes:
        mark = paint("✓", "green") if change.done else paint("+", "yellow") if not change.todo else paint("!", "red")
        detail = "created" if change.done and change.kind == "create" else printable(change.detail)
        lines.append(f"{mark} {paint(printable(change.topic), 'bold')}  {detail}")
        # The advice is about the cluster as a whole: what is said of one topic holds for the others.
        if change.todo and not change.done and change.kind not in advised:
            advised.add(change.kind)
            lines.append(f"    {printable(change.todo)}")
    done = sum(change.done for change in changes)
    left = len(changes) - done
    if applied:
        text = f"{plural(done, 'change')} made"
        text += f", {left} left to you" if left else f"; all topics on {where} are as declared."
    else:
        text = f"{plural(left, 'difference')}."
        if any(not change.todo for change in changes):
            text += " `fuseboard topics apply` creates what is missing."
    return [*lines, "", paint(text, "green" if applied and not left else "yellow")]
