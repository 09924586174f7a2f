"""Schemas and what a change of them breaks, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fuseboard_streams.cli.render.text import PLAIN, Cell, Paint, Style, plural, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_schemas.compat import Check, Problem, SchemaInfo
    from fuseboard_schemas.registry import Comparison, Registration

_STYLES: Final[dict[str, Style]] = {
    "unchanged": "green",
    "same": "green",
    "unreleased": "yellow",
    "compatible": "yellow",
    "missing": "yellow",
    "incompatible": "red bold",
}


def list_lines(schemas: Sequence[SchemaInfo], paint: Paint = PLAIN, columns: int | None = None) -> list[str]:
    """Return a table of schemas."""
    rows = [
        (Cell(s.record, "bold"), s.topic, f"v{s.version}", f"0x{s.schema_id:08x}", str(s.fields), s.fingerprint[:12])
        for s in schemas
    ]
    header = ("record", "topic", "version", "id", "fields", "fingerprint")
    return table(header, rows, paint=paint, right=frozenset({4}), columns=columns)


def check_lines(checks: Sequence[Check], paint: Paint = PLAIN) -> list[str]:
    """Return the comparison with the released versions: one line per record, the offending fields below it."""
    rows = [(c.record, f"v{c.released}", Cell(c.status, _STYLES.get(c.status, ""))) for c in checks]
    head, *lines = table(("record", "released", "schema"), rows, paint=paint)
    out = [head]
    for check, line in zip(checks, lines, strict=True):
        out += [line, *_problems(check.problems, paint)]
    return [*out, "", _verdict(sum(bool(c.problems) for c in checks), len(checks), "the released versions", paint)]


def comparison_lines(comparisons: Sequence[Comparison], where: str, paint: Paint = PLAIN) -> list[str]:
    """Return the comparison with a registry, likewise."""
    rows = [
        (c.subject, Cell(c.status, _STYLES.get(c.status, "")), "" if c.schema_id is None else str(c.schema_id))
        for c in comparisons
    ]
    head, *lines = table(("subject", "registry", "id"), rows, paint=paint)
    out = [head]
    for comparison, line in zip(comparisons, lines, strict=True):
        out += [line, *_problems(comparison.problems, paint)]
    bad = sum(bool(c.problems) for c in comparisons)
    return [*out, "", _verdict(bad, len(comparisons), f"the registry at {where}", paint)]


def registration_lines(made: Sequence[Registration], where: str, paint: Paint = PLAIN) -> list[str]:
    """Return what has been registered, and under which ids."""
    rows = [(Cell(m.record, "bold"), m.subject, str(m.schema_id)) for m in made]
    lines = table(("record", "subject", "id"), rows, paint=paint, right=frozenset({2}))
    return [*lines, "", paint(f"{plural(len(made), 'schema')} registered at {where}, compatibility BACKWARD", "green")]


def _problems(problems: Sequence[Problem], paint: Paint) -> list[str]:
    """Return one indented line per problem."""
    return [f"    {paint(p.field, 'bold')}  {p.reason}" for p in problems]


def _verdict(bad: int, total: int, what: str, paint: Paint) -> str:
    """Return the last line."""
    if bad:
        return paint(f"{plural(bad, 'schema')} of {total} cannot read what was written with {what}", "red bold")
    return paint(f"All {plural(total, 'schema')} can read what was written with {what}", "green")
