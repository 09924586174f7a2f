"""Reads a rules file as YAML 1.2, safely, and keeps for every value the line on which it stands.

Only what the YAML 1.2 core schema calls null, booleans, integers, floats and strings is read: `on` and `no` are
strings, `1e4` is a number. Anchors and aliases are refused, because a short file of them can be blown up to any size;
so are tags, several documents, keys that are no text, and keys that stand twice.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import yaml

from fuseboard_schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES: Final = 262_144
"""A longer file is refused unread: a tenant's rules are a page or two."""
_MAX_DEPTH: Final = 24
_MAX_NODES: Final = 50_000

# YAML 1.2.2, section 10.3.2 (core schema).
_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE, _FALSE = re.compile(r"true|True|TRUE"), re.compile(r"false|False|FALSE")
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_OCTAL, _HEXADECIMAL = re.compile(r"0o[0-7]+"), re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MOST_DIGITS = 30

Scalar: TypeAlias = str | int | float | bool | None
Plain: TypeAlias = "Scalar | list[Plain] | dict[str, Plain]"
Path: TypeAlias = tuple[str | int, ...]


class RulesError(ConfigurationError):
    """A rules file that cannot be used.

    Attributes:
        problems: Every one that was found, in the order of the file.
    """

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a rules file."""

    source: str
    """Name of the file."""
    line: int | None
    """From 1; None if it is about the file as a whole."""
    path: Path
    """Keys and indexes from the top."""
    text: str
    """What is wrong, what was expected, and what to do."""
    warning: bool = False
    """Whether the file can be used all the same."""

    def __str__(self) -> str:
        where = self.source if self.line is None else f"{self.source}:{self.line}"
        text = f"warning: {self.text}" if self.warning else self.text
        return f"{where}: {dotted(self.path)}: {text}" if self.path else f"{where}: {text}"


@dataclass(frozen=True, slots=True)
class Document:
    """A rules file that is YAML: its content, and where everything stands."""

    source: str
    text: str
    content: dict[str, Plain]
    lines: dict[Path, int]
    """Line of every value, and of the key before it where there is one."""

    def line_of(self, path: Path) -> int | None:
        """The line of a value, or of the nearest thing around it that is in the file."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None

    def problem(self, path: Path, text: str, *, warning: bool = False) -> Problem:
        """Something wrong with a value."""
        return Problem(self.source, self.line_of(path), path, text, warning)


def dotted(path: Path) -> str:
    """A path as people write it: ``breakers.cost-runaway.ladder[1]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read(data: bytes, source: str) -> Document:
    """Read a rules file.

    Args:
        data: Its bytes.
        source: Its name, for messages.

    Raises:
        RulesError: It is too large, no UTF-8, no YAML, no table, or holds what is not read here.
    """
    if len(data) > MAX_BYTES:
        raise _refused(source, None, (), f"the file has {len(data)} bytes; at most {MAX_BYTES} are read.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _refused(source, line, (), "this is no UTF-8; save the file as UTF-8.") from None
    return _Reader(source, text).document()


class _Reader:
    def __init__(self, source: str, text: str) -> None:
        self._source = source
        self._text = text
        self._lines: dict[Path, int] = {}
        self._nodes = 0

    def document(self) -> Document:
        root = self._compose()
        content = self._value(root, ()) if root is not None else None
        if not isinstance(content, dict):
            what = "is empty" if content is None else "is no table"
            raise self._error(None, (), f"the file {what}; expected `version: 1`, then objectives and breakers.")
        return Document(self._source, self._text, content, self._lines)

    def _compose(self) -> yaml.Node | None:
        try:
            # Before anything is built: an alias would make one node many, and a deep one takes long to build.
            depth = 0
            for event in yaml.parse(self._text, Loader=yaml.SafeLoader):
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if depth > _MAX_DEPTH + 1:
                    raise self._error(event.start_mark, (), "the file is nested too deeply here; is a bracket open?")
                if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                    raise self._error(
                        event.start_mark, (), "anchors (&) and aliases (*) are not read; write the values out."
                    )
                tag = getattr(event, "tag", None)
                if tag is not None:
                    raise self._error(event.start_mark, (), f"the tag {tag} is not read; remove it.")
            return yaml.compose(self._text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            said = ", ".join(filter(None, (error.context, error.problem)))
            raise self._error(error.problem_mark or error.context_mark, (), f"this is no YAML: {said}.") from None
        except (yaml.YAMLError, RecursionError) as error:
            raise self._error(None, (), f"this is no YAML: {' '.join(str(error).split())}.") from None

    def _value(self, node: yaml.Node, path: Path) -> Plain:
        self._nodes += 1
        if self._nodes > _MAX_NODES or len(path) > _MAX_DEPTH:
            raise self._error(node.start_mark, path, "the file is nested too deeply, or holds too many values.")
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return dict(self._pairs(node, path))
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _pairs(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, Plain]]:
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key == "":
                raise self._error(key_node.start_mark, path, "a key is no text; expected a name.")
            if key in seen:
                text = f"the key stands twice, on line {seen[key]} too; remove one."
                raise self._error(key_node.start_mark, (*path, key), text)
            seen[key] = line
            self._lines[*path, key] = line
            yield key, self._value(value_node, (*path, key))

    def _scalar(self, node: yaml.Node, path: Path) -> Scalar:
        text = str(node.value)
        if getattr(node, "style", None) is not None:  # quoted, or a block of text
            return text
        value = plain_scalar(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise self._error(node.start_mark, path, f"{text} is no finite number; expected one.")
        return value

    def _error(self, mark: Any, path: Path, text: str) -> RulesError:  # noqa: ANN401 - of the pure or the C reader
        return _refused(self._source, None if mark is None else mark.line + 1, path, text)


def plain_scalar(text: str) -> Scalar:
    """What unquoted text means in the core schema of YAML 1.2; a number with too many digits stays text."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if len(text) <= _MOST_DIGITS:
        if _DECIMAL.fullmatch(text):
            return int(text)
        if _OCTAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
            return int(text, 0)
    if _NOT_FINITE.fullmatch(text):
        return math.nan
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _refused(source: str, line: int | None, path: Path, text: str) -> RulesError:
    return RulesError([Problem(source, line, path, text)])
