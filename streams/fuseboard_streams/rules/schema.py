"""The JSON Schema of rules files, for editors: made of the model, with defaults written as a file would write them."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, Final

from fuseboard_streams.rules.model import RulesFile
from fuseboard_streams.rules.quantities import duration_text, share_text

_FRACTION: Final = re.compile(r"[0-9]+/[0-9]+")


def json_schema() -> dict[str, Any]:
    """The schema, draft 2020-12. It is about form: what parts mean together is checked by ``fuseboard rules check``."""
    made = RulesFile.model_json_schema()
    for part in (made, *made["$defs"].values()):
        for field in part.get("properties", {}).values():
            field.pop("title", None)
            if "default" in field:
                field["default"] = _written(field)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "Fuseboard rules",
    }


def _written(field: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever JSON can say
    default = field["default"]
    if isinstance(default, str) and _FRACTION.fullmatch(default):
        return share_text(Fraction(default))
    if isinstance(default, int) and not isinstance(default, bool) and field.get("type") == "string":
        return duration_text(default)
    return default
