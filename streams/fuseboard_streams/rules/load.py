"""From the bytes of a rules file to its model, or to a list of all that is wrong with its form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from fuseboard_streams.rules.document import Document, Path, Plain, RulesError, read
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
        return RulesFile.model_validate(frozen(document.content)), document
    except ValidationError as error:
        found = (document.problem(path, text) for path, text in mistakes(document.content, error).items())
        raise RulesError(sorted(found, key=lambda problem: problem.line or 0)) from None


def frozen(value: Plain) -> Any:  # noqa: ANN401 - whatever the file holds
    """The same with tuples for lists, as the model takes it."""
    if isinstance(value, list):
        return tuple(map(frozen, value))
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return value


def mistakes(content: Plain, error: ValidationError) -> dict[Path, str]:
    """What is wrong with a part of a rules file, by its place in that part."""
    # Of a value that may have several forms the last one tried is the longest: a list instead of a word.
    errors = [detail for detail in error.errors(include_url=False) if not _only_left_out(detail)]
    return {_path(content, detail): _words(detail) for detail in errors}


def _only_left_out(detail: ErrorDetails) -> bool:
    """Whether a list is called too short for lack of entries that are wrong themselves, and are told of."""
    return detail["type"] == "too_short" and bool(detail["input"])


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
    kind, context, given = detail["type"], _context(detail), detail["input"]
    match kind:
        case "missing":
            return "it is missing; add it."
        case "value_error":
            return _clipped(f"{context.get('error')}.")
        case "literal_error":
            return f"expected {context.get('expected')}, found {_shown(given)}."
        case "union_tag_not_found":
            return "`kind` is missing; it says which test this is."
        case "union_tag_invalid":
            return f"expected one of {context.get('expected_tags')} as `kind`, found {context.get('tag')!r}."
        case "string_pattern_mismatch":
            return f"expected lower-case letters, digits and hyphens, beginning with a letter, found {_shown(given)}."
        case "unknown_field":
            return detail["msg"]
        case "no_table":
            return f"{detail['msg']}, found {_shown(given)}."
        case "too_short" | "string_too_short":
            return "it is empty; expected at least one entry or character."
    expected = _EXPECTED.get(kind)
    if expected is None:
        return f"{detail['msg']}, found {_shown(given)}."
    return f"expected {expected.format(**context)}, found {_shown(given)}."


_EXPECTED: Final = {
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number from {ge:g} on",
    "less_than_equal": "a number up to {le:g}",
    "too_long": "at most {max_length} entries",
    "string_too_long": "at most {max_length} characters",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_attributes_type": "a table",
    "model_type": "a table",
}
"""What a value should have been, by the validator's name for the mistake."""


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return _clipped(repr(text) if isinstance(value, str) else text, 60)


def _clipped(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _context(detail: ErrorDetails) -> Mapping[str, Any]:
    return detail.get("ctx") or {}
