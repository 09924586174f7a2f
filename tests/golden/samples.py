"""One full and one minimal record of each kind, and the files that pin their bytes.

Run ``python -m tests.golden.samples`` after adding a record; bytes that exist already must never change.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from fuseboard_schemas import catalogue
from fuseboard_schemas.codec import Encoder, build, class_of

HERE = Path(__file__).parent
SCHEMAS = HERE / "schemas.json"


def full(record: str) -> Any:
    """A record with a value in every field."""
    return build(class_of(record), _values(catalogue.schema(record)["fields"], {}))


def minimal(record: str) -> Any:
    """A record in which every field that has a default is left out."""
    required = [field for field in catalogue.schema(record)["fields"] if "default" not in field]
    return build(class_of(record), _values(required, {}))


def lines(record: str) -> list[str]:
    """The bytes of both, as hex."""
    encoder = Encoder(record)
    return [encoder.encode(full(record)).hex(), encoder.encode(minimal(record)).hex()]


def pins() -> dict[str, dict[str, str]]:
    """Id and fingerprint of every released schema."""
    return {
        f"{release.record}.v{release.version}": {
            "id": f"0x{release.schema_id:08x}",
            "fingerprint": catalogue.fingerprint(release.schema),
        }
        for release in catalogue.releases()
    }


def _values(fields: list[dict[str, Any]], named: dict[str, Any]) -> dict[str, Any]:
    return {field["name"]: _value(field["name"], field["type"], named) for field in fields}


def _value(name: str, avro: Any, named: dict[str, Any]) -> Any:
    if isinstance(avro, list):
        return _value(name, avro[1], named)
    avro = named.get(avro, avro) if isinstance(avro, str) else avro
    number = zlib.crc32(name.encode())
    if isinstance(avro, dict):
        if avro["type"] == "enum":
            named[avro["name"]] = avro
            return avro["symbols"][number % len(avro["symbols"])]
        if avro["type"] == "array":
            return tuple(_value(f"{name}{i}", avro["items"], named) for i in range(2))
        if avro["type"] == "record":
            return build(class_of(avro["name"]), _values(avro["fields"], named))
        return 1_767_225_600_000_000 + number
    plain = {"long": number - (1 << 31), "int": number >> 16, "double": number / 8, "boolean": number % 2 == 0}
    return {**plain, "string": f"{name} é", "bytes": name.encode() * 9}[avro]


def main() -> None:
    """Write the files of new records and releases."""
    for record in catalogue.record_names():
        path = HERE / f"{record}.hex"
        if not path.exists():
            path.write_text("\n".join(lines(record)) + "\n", encoding="ascii")
    SCHEMAS.write_text(json.dumps(pins(), indent=2) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
