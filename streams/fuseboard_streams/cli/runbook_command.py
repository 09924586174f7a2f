"""``fuseboard runbook``: what to do about an open breaker, from the package itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from fuseboard_streams.cli.options import json_option

# In a wheel they lie inside the package; a checkout has them where the other documents are.
_FOLDERS: Final = (Path(__file__).parents[1] / "runbooks", Path(__file__).parents[3] / "docs" / "runbooks")

SHARED: Final = {"actor-failing": "tool-failing"}
"""Packaged rules that have the runbook of another."""


@click.command("runbook")
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """Print the runbook NAME, e.g. tool-failing; without NAME, list those there are.

    A breaker's runbook is in `fuseboard breakers show`, in its commands, and in what agents raise.
    """
    from fuseboard_schemas.errors import ConfigurationError

    found = runbooks()
    if name is None:
        click.echo(json.dumps(sorted(found)) if as_json else "\n".join(sorted(found)))
        return
    short = Path(name).name.removesuffix(".md")
    path = found.get(SHARED.get(short, short))
    if path is None:
        there = ", ".join(sorted(found)) or "none in this installation"
        raise ConfigurationError(f"There is no runbook {name!r} in this package. Those there are: {there}.")
    text = path.read_text(encoding="utf-8")
    click.echo(json.dumps({"name": path.stem, "text": text}, ensure_ascii=False) if as_json else text.rstrip())


def runbooks() -> dict[str, Path]:
    """Return the runbooks of this installation by name."""
    folder = next((each for each in _FOLDERS if each.is_dir()), None)
    return {} if folder is None else {path.stem: path for path in folder.glob("*.md")}
