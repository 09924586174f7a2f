"""From the bytes of a rules file to its model, or to a list of all that is wrong with its form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fuseboard_streams.rules.document import Document, Path, Plain, Problem, RulesError, read
from fuseboard_streams.rules.model import RulesFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails


def load(data: bytes, source: str) -> tuple[RulesFile, Document]:
    """Read a rules file; what its parts mean together is not checked yet.

    Args:
        data: Its bytes.
        source: Its name, for messages.

    Raises:
        RulesError: It is no YAML, or not of the form that is expected; every problem is named.
    """
    document = read(data, source)
    try:
        return RulesFile.model_validate(_frozen(document.content)), document
    except ValidationError as error:
        raise RulesError(_problems(document, error)) from None


def _frozen(value: Plain) -> Any:  # noqa: ANN401 - the same with tuples for lists
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return value


def _problems(document: Document, error: ValidationError) -> list[Problem]:
    found: dict[Path, Problem] = {}
    for detail in error.errors(include_url=False):
        path = _path(document.content, detail)
        # Of a value that may have several forms the last one tried is the longest: a list instead of a word.
        found[path] = document.problem(path, _words(detail))
    return sorted(found.values(), key=lambda problem: problem.line or 0)


def _path(content: Plain, detail: ErrorDetails) -> Path:
    """Where in the file an error lies: its own path also names forms that were tried."""
    path: list[str | int] = []
    here: Any = content
    for part in detail["loc"]:
        if isinstance(here, list):
            inside = isinstance(part, int) and part < len(here)
        else:
            inside = isinstance(here, dict) and part in here
        if inside:
            here = here[part]
        elif detail["type"] != "missing" or part != detail["loc"][-1]:
            continue
        path.append(part)
    key = _context(detail).get("key")
    return (*path, key) if isinstance(key, str) else tuple(path)


def _words(detail: ErrorDetails) -> str:
    """What is wrong, in our words."""
    kind, context = detail["type"], _context(detail)
    if kind == "missing":
        return "it is missing; add it."
    if kind == "value_error":
        return f"{context.get('error')}."
    if kind == "literal_error":
        return f"expected {context.get('expected')}, found {detail['input']!r}."
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        expected = context.get("expected_tags")
        return (
            f"`kind` says which test it is; expected one of {expected}." if expected else "`kind` is missing; add it."
        )
    if kind == "string_pattern_mismatch":
        return f"{detail['input']!r} has not the form of a name here ({context.get('pattern')})."
    said = detail["msg"].removesuffix(".").replace("tuple", "list").replace("dictionary", "table")
    return f"{said[:1].lower()}{said[1:]}." if kind == "unknown_field" else f"{said}, found {_shown(detail['input'])}."


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _context(detail: ErrorDetails) -> Mapping[str, Any]:
    return detail.get("ctx") or {}
