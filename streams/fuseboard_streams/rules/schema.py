"""The JSON Schema of rules files, for editors: made of the model, with defaults written as a file would write them."""

from __future__ import annotations

import ast
import inspect
import re
from fractions import Fraction
from typing import Any, Final

from fuseboard_streams.rules import model
from fuseboard_streams.rules.quantities import duration_text, share_text

_FRACTION: Final = re.compile(r"[0-9]+/[0-9]+")


def json_schema() -> dict[str, Any]:
    """The schema, draft 2020-12. It is about form: what parts mean together is checked by ``fuseboard rules check``."""
    made = model.RulesFile.model_json_schema()
    words = descriptions()
    for title, part in {"RulesFile": made, **made["$defs"]}.items():
        part["description"] = part["description"].replace("``", "`")
        for name, field in part.get("properties", {}).items():
            field.pop("title", None)
            if name in words[title]:
                field["description"] = words[title][name]
            if "default" in field:
                field["default"] = written(field)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "Fuseboard rules"}


def descriptions() -> dict[str, dict[str, str]]:
    """The string under each field of each class of the model, as one paragraph."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(model)).body:
        if isinstance(node, ast.ClassDef):
            fields = found[node.name] = {}
            for field, text in zip(node.body, node.body[1:], strict=False):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(field.target, ast.Name)
                    and isinstance(text, ast.Expr)
                ):
                    words = str(ast.literal_eval(text.value)).replace("``", "`")
                    fields[field.target.id] = " ".join(words.split())
    return found


def written(field: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever JSON can say
    """The default of a field as a file would write it."""
    default = field["default"]
    if isinstance(default, str) and _FRACTION.fullmatch(default):
        return share_text(Fraction(default))
    if isinstance(default, int) and not isinstance(default, bool) and field.get("type") == "string":
        return duration_text(default)
    return default
