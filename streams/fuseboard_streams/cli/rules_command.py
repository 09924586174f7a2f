"""``fuseboard rules``: check a rules file, explain it, compare two, apply one, print the schema for editors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fuseboard_streams.cli.options import json_option, paint, terminal_columns
from fuseboard_streams.cli.rules_apply import apply_command
from fuseboard_streams.cli.rules_show import show_command

if TYPE_CHECKING:
    from fuseboard_streams.rules.compile import Compiled

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group("rules")
def command() -> None:
    """Check, explain and compare rules files, put one in force, and see which holds.

    FILE is the packaged one where it can be left out.
    """


command.add_command(apply_command)
command.add_command(show_command)


@command.command("check", short_help="Say what is wrong with a file.")
@click.argument("file", required=False, type=_FILE)
@json_option
def check_command(file: Path | None, as_json: bool) -> None:
    """Check a rules file: problems with their lines and places. Exits with 1 if it cannot be used."""
    from fuseboard_streams.cli.render.rules import problem_json, problem_lines
    from fuseboard_streams.cli.render.text import plural
    from fuseboard_streams.rules.document import RulesError

    compiled, problems = None, []
    try:
        compiled = _compiled(file)
        problems = list(compiled.warnings)
    except RulesError as error:
        problems = error.problems
    if as_json:
        version = None if compiled is None else compiled.rules.version
        shown = [problem_json(each) for each in problems]
        click.echo(json.dumps({"ok": compiled is not None, "version": version, "problems": shown}, ensure_ascii=False))
    else:
        lines = problem_lines(problems, paint())
        if compiled is not None:
            breakers, objectives = len(compiled.file.breakers), len(compiled.file.objectives)
            made = f"{plural(breakers, 'breaker')}, {plural(objectives, 'objective')}"
            lines.append(f"{compiled.document.source}: {made}, version {compiled.rules.version}")
        click.echo("\n".join(lines))
    if compiled is None:
        raise click.exceptions.Exit(1)


@command.command("explain", short_help="Show which rules a tool of an actor has, and why.")
@click.argument("actor")
@click.argument("tool")
@click.argument("file", required=False, type=_FILE)
@click.option("--tenant", default="default", show_default=True, help="Tenant of the actor.")
@json_option
def explain_command(actor: str, tool: str, file: Path | None, tenant: str, as_json: bool) -> None:
    """Show every rule that is for ACTOR's use of TOOL: its values, and the line that each comes from."""
    from fuseboard_streams.cli.render.rules import explanation_lines
    from fuseboard_streams.rules.explain import explain

    compiled = _usable(file)
    found = explain(compiled, tenant, actor, tool)
    if as_json:
        rules = [dataclasses.asdict(each) for each in found]
        click.echo(json.dumps({"version": compiled.rules.version, "rules": rules}, ensure_ascii=False))
    else:
        target = f"{actor} · {tool}" if tenant == "default" else f"{tenant}/{actor} · {tool}"
        source = compiled.document.source
        click.echo("\n".join(explanation_lines(found, source, target, paint(), terminal_columns())))


@command.command("diff", short_help="Show what another file would change, and for whom.")
@click.argument("old", type=_FILE)
@click.argument("new", required=False, type=_FILE)
@json_option
def diff_command(old: Path, new: Path | None, as_json: bool) -> None:
    """Show what changes from OLD to NEW, for whom, and which rules lose what they have learned."""
    from fuseboard_streams.cli.render.rules import change_lines
    from fuseboard_streams.rules.differences import differences

    before, after = _usable(old), _usable(new)
    changes = differences(before, after)
    if as_json:
        shown = [dataclasses.asdict(each) for each in changes]
        versions = {"old": before.rules.version, "new": after.rules.version}
        click.echo(json.dumps({**versions, "changes": shown}, ensure_ascii=False))
    else:
        click.echo("\n".join(change_lines(changes, paint(), terminal_columns())))


@command.command("schema", short_help="Print the JSON Schema of rules files, for editors.")
@click.option("--json", "_as_json", is_flag=True, help="Accepted for symmetry: the output is JSON anyway.")
def schema_command(_as_json: bool) -> None:
    """Print the JSON Schema of rules files.

    An editor that knows it completes names and marks mistakes of form: put
    `# yaml-language-server: $schema=rules.json` at the top of the file.
    """
    from fuseboard_streams.rules.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def _compiled(file: Path | None) -> Compiled:
    """Return a file compiled; the packaged one for ``None``."""
    from fuseboard_streams.rules.compile import PACKAGED, compile_rules

    path = PACKAGED if file is None else file
    return compile_rules(path.read_bytes(), path.name if file is None else str(path))


def _usable(file: Path | None) -> Compiled:
    """Return a file compiled; one that is wrong ends the command with every problem on a line of its own."""
    from fuseboard_streams.cli.render.rules import problem_lines
    from fuseboard_streams.rules.document import RulesError

    try:
        return _compiled(file)
    except RulesError as error:
        click.echo("\n".join(problem_lines(error.problems)), err=True)
        raise click.exceptions.Exit(error.exit_code) from None
