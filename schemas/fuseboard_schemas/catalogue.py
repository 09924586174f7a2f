"""The packaged schemas: the current one of each record, and every version that was ever released, by its fixed id."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuseboard_schemas.errors import FuseboardError

Schema = dict[str, Any]
"""An Avro schema as parsed JSON. What this module returns is shared: do not change it."""

NAMESPACE = "fuseboard.v1"
PACKAGED_ID_BASE = 0x4642_0000
"""Packaged ids are this plus 1, 2, ...: a registry counts from 1 and can never hand out the same number for another."""

PACKAGED_ID_COUNT = 0x1_0000
_HERE = Path(__file__).parent
AVSC = _HERE / "avsc"
RELEASED = _HERE / "released"


class CatalogueError(FuseboardError):
    """A record or schema id that this package does not have."""


@dataclass(frozen=True, slots=True)
class Release:
    """A released version of a record's schema; it never changes and its id is never reused."""

    record: str
    version: int
    schema_id: int

    @property
    def path(self) -> Path:
        """Where the package keeps it."""
        return RELEASED / f"{self.record}.v{self.version}.avsc"

    @property
    def schema(self) -> Schema:
        """The schema as parsed JSON."""
        return _load(self.path)


@functools.cache
def record_names() -> tuple[str, ...]:
    """Names of all records, in alphabetical order."""
    return tuple(sorted(path.stem for path in AVSC.glob("*.avsc")))


def schema(name: str) -> Schema:
    """The current schema of a record.

    Args:
        name: A record's name, for example ``ToolCall``.

    Raises:
        CatalogueError: There is no such record.
    """
    if name not in record_names():
        raise CatalogueError(f"There is no record called {name!r}. Known records: {', '.join(record_names())}.")
    return _load(AVSC / f"{name}.avsc")


@functools.cache
def releases() -> tuple[Release, ...]:
    """Every release, in the order of the ids."""
    listed: dict[str, str] = json.loads((RELEASED / "ids.json").read_text(encoding="utf-8"))
    found = []
    for label, number in listed.items():
        record, _, version = label.rpartition(".v")
        found.append(Release(record, int(version), int(number, 16)))
    return tuple(sorted(found, key=lambda release: release.schema_id))


@functools.cache
def latest(name: str) -> Release | None:
    """The newest release of a record, or None before its first."""
    versions = [release for release in releases() if release.record == name]
    return max(versions, key=lambda release: release.version, default=None)


def packaged_id(name: str) -> int:
    """The fixed schema id under which this package writes a record.

    Raises:
        CatalogueError: There is no such record, or it was never released.
    """
    release = latest(name)
    if release is None:
        raise CatalogueError(f"The record {name!r} has no released schema. Known records: {', '.join(record_names())}.")
    return release.schema_id


def is_packaged_id(schema_id: int) -> bool:
    """Whether an id lies in the range that belongs to this package, known to this version of it or not."""
    return PACKAGED_ID_BASE < schema_id < PACKAGED_ID_BASE + PACKAGED_ID_COUNT


def by_id(schema_id: int) -> Release | None:
    """The release with an id, or None if this package does not know it."""
    return _by_id().get(schema_id)


def fingerprint(avro: object) -> str:
    """SHA-256 of a schema without its ``doc``s, as hex: equal exactly if readers and writers see no difference."""
    text = json.dumps(without_docs(avro), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def without_docs(avro: object) -> object:
    """A schema without the ``doc`` of its types and fields."""
    if isinstance(avro, dict):
        return {key: value if key == "default" else without_docs(value) for key, value in avro.items() if key != "doc"}
    if isinstance(avro, list):
        return [without_docs(item) for item in avro]
    return avro


@functools.cache
def _by_id() -> dict[int, Release]:
    return {release.schema_id: release for release in releases()}


@functools.cache
def _load(path: Path) -> Schema:
    loaded: Schema = json.loads(path.read_text(encoding="utf-8"))
    return loaded
