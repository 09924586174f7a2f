"""Writes ``records/`` from ``avsc/`` and releases schemas.

Run ``python -m fuseboard_schemas.generate`` after every change of an ``.avsc``, with ``--release`` when the change is
to be published: from then on that version keeps its id for good.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuseboard_schemas import catalogue, topics
from fuseboard_schemas.errors import FuseboardError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MODULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "events": (
        "What agents publish.",
        ("ToolCall", "TraceStep", "PolicyDecision", "TaskOutcome", "SessionRequest", "EvalResult"),
    ),
    "control": (
        "Findings, rules, breakers, and what people and enforcers say to them.",
        ("Signal", "Rules", "Override", "Pane", "BreakerCommand", "EnforcementAck", "Alert"),
    ),
    "internals": (
        "What the workers write about their own work.",
        ("Aggregate", "AuditRecord", "Heartbeat", "DeadLetter", "StateRecord"),
    ),
}
"""Module of ``records/`` to its docstring and its records."""

RECORDS = Path(__file__).parent / "records"
BANNER = "# Generated from avsc/*.avsc by `python -m fuseboard_schemas.generate`; do not edit."
PYTHON_TYPES = {"string": "str", "long": "int", "int": "int", "double": "float", "boolean": "bool", "bytes": "bytes"}
WIDTH = 120
CLASS = re.compile(r"^class (\w+)", re.MULTILINE)
PACKAGE = '''"""The records as frozen dataclasses.

Times are integer microseconds since 1970-01-01 UTC, money is integer micro-dollars. The modules are loaded at the first
use of one of their names: making all classes takes longer than an agent process should wait at its start.
"""

{banner}
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeAlias

{imports}
    Record: TypeAlias = (
        {union}
    )
    """Any record that is the value of a topic."""
    RECORDS: dict[str, type[Record]]
    """Record name to class."""

_HOMES = {{
{homes}
}}
_RECORDS = (
{records}
)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name in _HOMES:
        value = getattr(import_module(f"{{__name__}}.{{_HOMES[name]}}"), name)
    elif name == "RECORDS":
        value = {{record: __getattr__(record) for record in _RECORDS}}
    elif name == "Record":
        value = __getattr__(_RECORDS[0])
        for record in _RECORDS[1:]:
            value |= __getattr__(record)
    else:
        raise AttributeError(f"module {{__name__!r}} has no attribute {{name!r}}")
    globals()[name] = value
    return value


__all__ = [
{exported}
]
'''


class GenerationError(FuseboardError):
    """A schema that the generator cannot turn into Python."""


class Generator:
    """Turns parsed schemas into Python source."""

    def __init__(self) -> None:
        self.enums: dict[str, dict[str, Any]] = {}
        self.nested: dict[str, str] = {}

    def modules(self) -> dict[str, str]:
        """File name to source for the whole ``records`` package."""
        listed = {name for _, names in MODULES.values() for name in names}
        if listed != set(catalogue.record_names()):
            raise GenerationError(
                f"avsc/ and generate.MODULES differ: {sorted(listed ^ set(catalogue.record_names()))}."
            )
        sources = {f"{module}.py": self._module(*spec) for module, spec in MODULES.items()}
        sources["enums.py"] = self._enums()
        sources["__init__.py"] = self._package(sources)
        return sources

    def _module(self, doc: str, names: Sequence[str]) -> str:
        self.nested = {}
        classes = [self._record(catalogue.schema(name)) for name in names]
        body = "\n\n\n".join([*self.nested.values(), *classes])
        used = sorted(name for name in self.enums if f": {name}" in body or f"= {name}." in body)
        imports = "\n".join(f"    {name}," for name in used)
        head = f'"""{doc}"""\n\n{BANNER}\nfrom dataclasses import dataclass\n\n'
        if used:
            head += f"from fuseboard_schemas.records.enums import (\n{imports}\n)\n\n\n"
        else:
            head += "\n"
        return head + body + "\n"

    def _record(self, avro: dict[str, Any]) -> str:
        lines = [
            "@dataclass(frozen=True, slots=True, kw_only=True)",
            f"class {avro['name']}:",
            *docstring(avro["doc"]),
            "",
        ]
        for field in avro["fields"]:
            annotation = self._type(field["type"])
            default = self._default(field) if "default" in field else ""
            lines.append(f"    {field['name']}: {annotation}{default}")
            lines += docstring(field["doc"])
        return "\n".join(lines)

    def _type(self, avro: object) -> str:
        if isinstance(avro, list):
            if len(avro) != 2 or avro[0] != "null":
                raise GenerationError(f"Only unions of null and one type are supported, not {avro}.")
            return f"{self._type(avro[1])} | None"
        if isinstance(avro, str):
            return PYTHON_TYPES.get(avro, avro)
        assert isinstance(avro, dict)
        kind = avro["type"]
        if kind == "enum":
            known = self.enums.setdefault(avro["name"], avro)
            if known != avro:
                raise GenerationError(f"The enum {avro['name']} is not the same in all schemas.")
            return str(avro["name"])
        if kind == "record":
            self.nested[avro["name"]] = self._record(avro)
            return str(avro["name"])
        if kind == "array":
            return f"tuple[{self._type(avro['items'])}, ...]"
        return PYTHON_TYPES[kind]

    def _default(self, field: dict[str, Any]) -> str:
        value, avro = field["default"], field["type"]
        if value == []:
            return " = ()"
        name = avro if isinstance(avro, str) else avro.get("name") if isinstance(avro, dict) else None
        if name in self.enums:
            return f" = {name}.{value}"
        return f' = "{value}"' if isinstance(value, str) else f" = {value!r}"

    def _enums(self) -> str:
        parts = []
        for name in sorted(self.enums):
            avro = self.enums[name]
            members = [f'    {symbol} = "{symbol}"' for symbol in avro["symbols"]]
            parts.append("\n".join([f"class {name}(StrEnum):", *docstring(avro["doc"]), "", *members]))
        return (
            f'"""Enumerations of the records."""\n\n{BANNER}\nfrom enum import StrEnum\n\n\n'
            + "\n\n\n".join(parts)
            + "\n"
        )

    def _package(self, sources: dict[str, str]) -> str:
        homes = {name: file[:-3] for file in sorted(sources) for name in CLASS.findall(sources[file])}
        imports = []
        for module in sorted(set(homes.values())):
            names = "".join(f"        {name},\n" for name in sorted(homes) if homes[name] == module)
            imports.append(f"    from fuseboard_schemas.records.{module} import (\n{names}    )\n")
        records = [name for _, names in MODULES.values() for name in names]
        return PACKAGE.format(
            banner=BANNER,
            imports="".join(imports),
            union="\n        | ".join(records),
            homes="\n".join(f'    "{name}": "{homes[name]}",' for name in sorted(homes)),
            records="\n".join(f'    "{name}",' for name in records),
            exported="\n".join(f'    "{name}",' for name in sorted([*homes, "RECORDS", "Record"], key=_isort_key)),
        )


def _isort_key(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1, name)


def _summary_ends(text: str) -> list[int]:
    return [match.end() for match in re.finditer(r"\.(?= )", text)]


def docstring(text: str) -> list[str]:
    """A docstring indented by four, wrapped to the line width."""
    line = f'    """{text}"""'
    if len(line) <= WIDTH:
        return [line]
    first, rest = next(((text[:i], text[i:].strip()) for i in _summary_ends(text)), (text, ""))
    return [f'    """{first}', "", *(f"    {part}" for part in textwrap.wrap(rest, WIDTH - 4)), '    """']


def release(records: Iterable[str]) -> list[catalogue.Release]:
    """Release every record whose schema differs from its newest release; returns the new releases."""
    made = []
    ids_file = catalogue.RELEASED / "ids.json"
    catalogue.RELEASED.mkdir(exist_ok=True)
    ids: dict[str, str] = json.loads(ids_file.read_text(encoding="utf-8")) if ids_file.exists() else {}
    for name in records:
        versions = [int(label.rpartition(".v")[2]) for label in ids if label.rpartition(".v")[0] == name]
        current = catalogue.schema(name)
        newest = max(versions, default=0)
        previous = catalogue.Release(name, newest, 0).schema if newest else None
        if catalogue.fingerprint(previous) == catalogue.fingerprint(current):
            continue
        number = max((int(value, 16) for value in ids.values()), default=catalogue.PACKAGED_ID_BASE) + 1
        new = catalogue.Release(name, newest + 1, number)
        new.path.write_text(json.dumps(current, indent=2) + "\n", encoding="utf-8")
        ids[f"{name}.v{new.version}"] = f"0x{number:08x}"
        made.append(new)
    ids_file.write_text(json.dumps(ids, indent=2) + "\n", encoding="utf-8")
    return made


def stale(sources: dict[Path, str]) -> list[Path]:
    """Those of the files whose content is not what the generator would write."""
    return [path for path, text in sources.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def outputs() -> dict[Path, str]:
    """Every generated file inside the package, with its content."""
    return {RECORDS / name: text for name, text in Generator().modules().items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 fine, 1 if ``--check`` finds a file out of date."""
    parser = argparse.ArgumentParser(prog="python -m fuseboard_schemas.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of date")
    parser.add_argument("--release", action="store_true", help="give every changed schema its next version and id")
    parser.add_argument("--topics", type=Path, metavar="FILE", help="also write the declaration of the topics as YAML")
    options = parser.parse_args(arguments)
    files = outputs()
    if options.topics is not None:
        files[options.topics] = topics.declaration()
    old = stale(files)
    if options.check:
        for path in old:
            print(f"{path} is out of date; run `python -m fuseboard_schemas.generate`", file=sys.stderr)
        return 1 if old else 0
    for path in old:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path], encoding="utf-8")
        print(f"wrote {path}")
    if options.release:
        for new in release([name for _, names in MODULES.values() for name in names]):
            print(f"released {new.record} version {new.version} as 0x{new.schema_id:08x}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
