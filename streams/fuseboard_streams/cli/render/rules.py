"""Rules, problems in them and differences between them, for people."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from fuseboard_streams.cli.render.text import PLAIN, Cell, Paint, plural, printable, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_streams.rules.differences import Change, Field
    from fuseboard_streams.rules.document import Problem
    from fuseboard_streams.rules.explain import Explanation, Value

_HEAD: Final = ("metric", "test.kind")
_RELEASED: Final = "holds released, but for a person's"


def problem_lines(problems: Sequence[Problem], paint: Paint = PLAIN) -> list[str]:
    """One line per problem, ``file:line: path: text``."""
    return [paint(printable(str(each)), "yellow" if each.warning else "red") for each in problems]


def problem_json(problem: Problem) -> dict[str, object]:
    """One problem as a JSON object, its path as text."""
    from fuseboard_streams.rules.document import dotted

    return {**dataclasses.asdict(problem), "path": dotted(problem.path)}


def explanation_lines(
    found: Sequence[Explanation], source: str, target: str, paint: Paint = PLAIN, columns: int | None = None
) -> list[str]:
    """Every rule that a target has, its values, and from which line of the file each comes.

    Args:
        found: The rules.
        source: Name of the file.
        target: What they are for.
        paint: Adds the colours.
        columns: The terminal's width.
    """
    if not found:
        return [f"No rule of {printable(source)} is for {printable(target)}."]
    lines = [f"{printable(target)}, by {printable(source)}:"]
    for each in found:
        lines += ["", _title(each, paint), f"  {each.about}"]
        rows = [(value.path, Cell(value.value, "bold"), _origin(value)) for value in each.values]
        shown = [row for row in rows if row[0] not in _HEAD]
        lines += [f"  {line}" for line in table(("value", "is", "from"), shown, paint=paint, columns=columns)[1:]]
        lines += [f"  {printable(note)}." for note in each.notes]
    return lines


def _title(each: Explanation, paint: Paint) -> str:
    values = {value.path: value.value for value in each.values}
    kind = values.get("test.kind", "objective")
    return f"{paint(each.rule, 'bold')}  {each.scope}  {values['metric']}  {kind}  line {each.line}"


def _origin(value: Value) -> str:
    match value.origin:
        case "override":
            return f"override, line {value.line}"
        case "built in":
            return "built in"
        case "defaults":
            return f"defaults, line {value.line}"
        case _:
            return f"line {value.line}"


def change_lines(changes: Sequence[Change], paint: Paint = PLAIN, columns: int | None = None) -> list[str]:
    """What changes for whom, one line per value, whose holds are released, and how much is lost that was learned."""
    if not changes:
        return [paint("Nothing changes.", "green")]
    rows = [
        (each.rule, each.scope, each.whom, *_difference(each, field), _state(each))
        for each in changes
        for field in each.fields or (None,)
    ]
    head = ("rule", "per", "for", "value", "before", "now", "state")
    cold = len({(each.rule, each.scope) for each in changes if each.cold})
    lost = f"what {plural(cold, 'rule')} {'has' if cold == 1 else 'have'} learned is lost"
    summary = f"{plural(len(changes), 'change')}; {lost if cold else 'nothing that was learned is lost'}"
    return [*table(head, rows, paint=paint, columns=columns), "", paint(summary, "yellow" if cold else "green")]


def _difference(change: Change, field: Field | None) -> tuple[Cell | str, Cell | str, Cell | str]:
    if field is None:
        return "", "", Cell(change.kind, "green" if change.kind == "added" else "red")
    return field.path, field.old or "none", Cell(field.new or "none", "bold")


def _state(change: Change) -> Cell:
    if change.section != "breaker" or change.kind == "added":
        return Cell("")
    if change.kind == "removed":
        return Cell(_RELEASED, "red")
    text = "starts cold" if change.cold else "goes on"
    return Cell(f"{text}; {_RELEASED}" if change.released else text, "red" if change.cold else "green")
