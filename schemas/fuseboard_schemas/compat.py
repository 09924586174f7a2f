"""What a change of a schema breaks: whether readers with the new schema can read what was written with the old one.

The rules are those of Avro's schema resolution, which a registry's compatibility BACKWARD applies too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fuseboard_schemas import catalogue, topics
from fuseboard_schemas.errors import FuseboardError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a reader with the new schema cannot read."""

    field: str
    """Where, for example ``ToolCall.effect``."""
    reason: str
    """What is wrong and what would be right, in one line."""


@dataclass(frozen=True, slots=True)
class SchemaInfo:
    """What there is to know about a record's schema at a glance."""

    record: str
    topic: str
    version: int
    schema_id: int
    fields: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Check:
    """How a record's schema stands to its released versions."""

    record: str
    released: int
    """Newest released version; 0 if there is none."""
    status: str
    """``unchanged``, ``unreleased`` (compatible, but no version yet) or ``incompatible``."""
    problems: tuple[Problem, ...]


def list_schemas() -> list[SchemaInfo]:
    """The newest release of every record, in the order of the topics."""
    found = []
    for topic in topics.TOPICS:
        release = catalogue.latest(topic.record)
        if release is not None:
            size, mark = len(release.schema["fields"]), catalogue.fingerprint(release.schema)
            found.append(SchemaInfo(topic.record, topic.name, release.version, release.schema_id, size, mark))
    return found


def show(record: str, version: int | None = None) -> catalogue.Schema:
    """A record's schema.

    Args:
        record: Name of the record.
        version: A released version; by default the current schema.

    Raises:
        CatalogueError: There is no such record or version.
    """
    if version is None:
        return catalogue.schema(record)
    catalogue.schema(record)
    versions = {release.version: release for release in catalogue.releases() if release.record == record}
    if version not in versions:
        known = ", ".join(map(str, sorted(versions)))
        raise catalogue.CatalogueError(f"{record} has no version {version}. Released versions: {known}.")
    return versions[version].schema


def check(directory: Path | None = None) -> list[Check]:
    """Compare schemas with every released version of the same record.

    Args:
        directory: A directory of ``<Record>.avsc`` files; by default the schemas of this package.

    Raises:
        FuseboardError: A file cannot be read or is no schema of a record.
    """
    if directory is None:
        current = {name: catalogue.schema(name) for name in catalogue.record_names()}
    else:
        current = {path.stem: load(path) for path in sorted(directory.glob("*.avsc"))}
        if not current:
            raise FuseboardError(f"{directory} holds no .avsc files: expected one per record, such as ToolCall.avsc.")
    return [check_schema(name, schema) for name, schema in current.items()]


def check_schema(record: str, schema: catalogue.Schema) -> Check:
    """Compare one schema with every released version of its record."""
    versions = sorted((r for r in catalogue.releases() if r.record == record), key=lambda release: release.version)
    problems: dict[Problem, None] = {}
    for release in reversed(versions):
        problems |= dict.fromkeys(backward_problems(schema, release.schema, keep_symbols=True))
    newest = versions[-1] if versions else None
    if newest is not None and catalogue.fingerprint(newest.schema) == catalogue.fingerprint(schema):
        status = "unchanged"
    else:
        status = "incompatible" if problems else "unreleased"
    return Check(record, newest.version if newest else 0, status, tuple(problems))


def load(path: Path) -> catalogue.Schema:
    """The schema in a file.

    Raises:
        FuseboardError: The file cannot be read or is no schema of a record.
    """
    expected = "expected the Avro schema of a record, as JSON"
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FuseboardError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:
        raise FuseboardError(f"{path} is no JSON: {error}; {expected}.") from None
    if not isinstance(loaded, dict) or loaded.get("type") != "record" or not isinstance(loaded.get("fields"), list):
        raise FuseboardError(f"{path}: {expected}.")
    return loaded


def backward_problems(
    reader: catalogue.Schema, writer: catalogue.Schema, *, keep_symbols: bool = False
) -> list[Problem]:
    """What a reader with one schema could not read of what was written with another; empty if it can read all.

    Args:
        reader: The new schema.
        writer: The old one.
        keep_symbols: Also refuse that an enum loses a symbol. By Avro's rules that is compatible if the enum has a
            default symbol, but it silently turns one meaning into another.
    """
    comparison = _Comparison(_named(reader, {}), _named(writer, {}), keep_symbols)
    return list(dict.fromkeys(comparison.problems(reader, writer, "")))


def _named(avro: object, found: dict[str, Any]) -> dict[str, Any]:
    """All named types of a schema by their name without the namespace."""
    if isinstance(avro, list):
        for item in avro:
            _named(item, found)
    elif isinstance(avro, dict):
        if isinstance(avro.get("name"), str) and avro.get("type") in ("record", "enum", "fixed"):
            found[_short(avro["name"])] = avro
        for key in ("type", "items", "values", "fields"):
            _named(avro.get(key), found)
    return found


def _short(name: str) -> str:
    return name.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A reader's and a writer's schema with their named types."""

    reader_types: dict[str, Any]
    writer_types: dict[str, Any]
    keep_symbols: bool

    def problems(self, reader: Any, writer: Any, path: str) -> Iterator[Problem]:  # noqa: ANN401 - any Avro type
        reader, writer = _resolved(reader, self.reader_types), _resolved(writer, self.writer_types)
        if isinstance(writer, list):
            for branch in writer:
                yield from self.problems(reader, branch, path)
        elif isinstance(reader, list):
            if all(any(self.problems(branch, writer, path)) for branch in reader):
                yield Problem(path, f"was {_words(writer)}, which none of {_words(reader)} can read")
        elif _kind(reader) != _kind(writer):
            if _kind(reader) not in _PROMOTIONS.get(_kind(writer), ()):
                yield Problem(path, f"was {_words(writer)} and cannot become {_words(reader)}")
        elif _kind(reader) in ("record", "enum", "fixed") and _short(reader["name"]) != _short(writer["name"]):
            yield Problem(path, f"the type was called {_short(writer['name'])} and is called {_short(reader['name'])}")
        elif _kind(reader) == "record":
            yield from self._record(reader, writer, path or _short(reader["name"]))
        elif _kind(reader) == "enum":
            yield from self._enum(reader, writer, path)
        elif _kind(reader) == "fixed" and reader["size"] != writer["size"]:
            yield Problem(path, f"had {writer['size']} bytes and has {reader['size']}")
        elif _kind(reader) in ("array", "map"):
            part = "items" if _kind(reader) == "array" else "values"
            yield from self.problems(reader[part], writer[part], f"{path}[]")

    def _record(self, reader: dict[str, Any], writer: dict[str, Any], path: str) -> Iterator[Problem]:
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            where = f"{path}.{field['name']}"
            names = [field["name"], *field.get("aliases", ())]
            source = next((written[name] for name in names if name in written), None)
            if source is not None:
                yield from self.problems(field["type"], source["type"], where)
            elif "default" not in field:
                yield Problem(where, "is new and has no default: give it one, so that older records can be read")

    def _enum(self, reader: dict[str, Any], writer: dict[str, Any], path: str) -> Iterator[Problem]:
        gone = ", ".join(symbol for symbol in writer["symbols"] if symbol not in reader["symbols"])
        if gone and "default" not in reader:
            yield Problem(path, f"lost {gone}: keep it, or give the enum a default symbol")
        elif gone and self.keep_symbols:
            yield Problem(path, f"lost {gone}, which would silently read as {reader['default']}: keep it")


def _resolved(avro: Any, named: dict[str, Any]) -> Any:  # noqa: ANN401 - any Avro type
    if isinstance(avro, str):
        return named.get(_short(avro), avro)
    if isinstance(avro, dict) and isinstance(avro["type"], dict):
        return _resolved(avro["type"], named)
    return avro


def _kind(avro: Any) -> str:  # noqa: ANN401 - any Avro type
    return str(avro["type"] if isinstance(avro, dict) else avro)


def _words(avro: Any) -> str:  # noqa: ANN401 - any Avro type
    if isinstance(avro, list):
        return "[" + ", ".join(_words(branch) for branch in avro) + "]"
    return str(avro.get("name", avro["type"])) if isinstance(avro, dict) else str(avro)
