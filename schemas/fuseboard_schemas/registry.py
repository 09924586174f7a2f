"""Which schema a value was written with: the packaged schemas, or a Confluent-compatible registry."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fuseboard_schemas import catalogue

if TYPE_CHECKING:
    from fuseboard_schemas.catalogue import Schema


@dataclass(frozen=True, slots=True)
class Writer:
    """The schema that an id stands for."""

    schema_id: int
    record: str
    """Name of the record, without the namespace."""
    fingerprint: str
    """:func:`fuseboard_schemas.catalogue.fingerprint` of the schema."""
    schema: Schema = field(repr=False, compare=False)

    @classmethod
    def of(cls, schema_id: int, schema: Schema) -> Writer:
        """The writer behind an id, named after its schema."""
        return cls(schema_id, schema["name"].rpartition(".")[2], catalogue.fingerprint(schema), schema)


class Resolver(Protocol):
    """Finds the schema that a value was written with."""

    def resolve(self, schema_id: int) -> Writer | None:
        """The writer's schema, or None if nobody knows the id.

        Raises:
            UnreachableError: The registry could not be asked, so nothing is known about the id; try again later.
        """


@functools.cache
def packaged_writer(schema_id: int) -> Writer | None:
    """The packaged schema with an id, or None."""
    release = catalogue.by_id(schema_id)
    return None if release is None else Writer.of(schema_id, release.schema)


class PackagedResolver:
    """Knows the released schemas of this package, and nothing else."""

    def resolve(self, schema_id: int) -> Writer | None:
        """The released schema with an id, or None."""
        return packaged_writer(schema_id)
