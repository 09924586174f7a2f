"""``fuseboard rules apply``: put a rules file in force."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fuseboard_streams.cli.one_record import person_of, person_option, send_one
from fuseboard_streams.cli.options import connection_options, json_option, paint, terminal_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_schemas.records import Rules
    from fuseboard_streams.cli.config import Connection
    from fuseboard_streams.cli.kafka import Reader
    from fuseboard_streams.cli.rules_topic import InForce, ShardRules
    from fuseboard_streams.rules.compile import Compiled
    from fuseboard_streams.rules.differences import Change
    from fuseboard_streams.rules.document import Problem


@dataclass(slots=True)
class Applying:
    """One file on its way into force."""

    before: InForce
    after: Compiled
    changes: Sequence[Change]
    needed: bool
    """Whether there is anything to write: not if the newest record says the same."""
    record: Rules | None = None
    """What was written; None before that, and with ``--dry-run``."""
    missing: Sequence[ShardRules] | None = None
    """The shards that do not run it; None if nobody waited for them."""


@click.command("apply", short_help="Put a file in force.")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--reason", metavar="TEXT", help="Why, in one line.")
@person_option
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait so long for every shard to run it; exit 1 if one does not.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@json_option
@connection_options
def apply_command(
    file: Path,
    reason: str | None,
    person: str | None,
    wait_s: float | None,
    dry_run: bool,
    as_json: bool,
    connection: Connection,
) -> None:
    """Check a rules file, show what it changes, and write it to the topic that all workers follow.

    Exits with 1 if the file cannot be used (nothing is written then), or if a shard does not run it within --wait.
    """
    name = person_of(person)
    # What is checked and shown is what is written, whoever saves the file meanwhile.
    data = file.read_bytes()
    compiled = _usable(data, str(file), as_json=as_json)
    from fuseboard_streams.cli.kafka import Reader
    from fuseboard_streams.cli.rules_topic import ShardWatch, read_rules
    from fuseboard_streams.rules.differences import differences

    with Reader(connection) as reader:
        before = read_rules(reader, connection)
        same = before.record is not None and before.version == compiled.rules.version and not before.refused
        applying = Applying(before, compiled, differences(before.compiled, compiled), needed=not same)
        if not as_json:
            _show_changes(applying, dry_run=dry_run)
        if applying.needed and not dry_run:
            applying.record = _write(reader, connection, applying, data, name, reason)
        if wait_s is not None and not dry_run:
            applying.missing = ShardWatch(reader, connection).wait(compiled.rules.version, wait_s)
    if as_json:
        click.echo(json.dumps(_as_json(applying), ensure_ascii=False))
    else:
        _show_outcome(applying, file, dry_run=dry_run)
    if applying.missing:
        raise click.exceptions.Exit(1)


def _usable(data: bytes, source: str, *, as_json: bool) -> Compiled:
    """Return a file compiled; one that is wrong ends the command with every problem and the code of ``rules check``."""
    from fuseboard_streams.cli.render.rules import problem_json, problem_lines
    from fuseboard_streams.rules.compile import compile_rules
    from fuseboard_streams.rules.document import RulesError

    try:
        return compile_rules(data, source)
    except RulesError as error:
        if as_json:
            problems = [problem_json(each) for each in error.problems]
            click.echo(json.dumps({"ok": False, "version": None, "problems": problems}, ensure_ascii=False))
        else:
            click.echo("\n".join([*problem_lines(error.problems), "Nothing was applied."]), err=True)
        raise click.exceptions.Exit(1) from None


def _write(
    reader: Reader, connection: Connection, applying: Applying, data: bytes, person: str, reason: str | None
) -> Rules:
    """Write the record and wait until the broker has it; return it."""
    from fuseboard.envelope import headers
    from fuseboard.transport import Message
    from fuseboard_schemas.codec import Encoder
    from fuseboard_schemas.keys import partition_for
    from fuseboard_schemas.records import Rules
    from fuseboard_streams.rules.compile import version_of
    from fuseboard_streams.worker.rules_source import RULES_KEY

    record = Rules(
        ts=time.time_ns() // 1_000,
        version=version_of(data),
        previous_version=applying.before.version,
        text=data.decode(),
        applied_by=person,
        reason=reason or None,
    )
    topic = connection.prefix + "rules"
    home = partition_for(RULES_KEY, len(reader.partitions(topic)))
    head = headers("Rules", f"{record.version}-{record.ts}", "/fuseboard/rules", record.ts)
    send_one(connection, Message(topic, home, RULES_KEY.encode(), Encoder("Rules").encode(record), head))
    return record


def _show_changes(applying: Applying, *, dry_run: bool) -> None:
    from fuseboard_streams.cli.render.applied import refused_lines
    from fuseboard_streams.cli.render.rules import change_lines, problem_lines

    colours = paint()
    lines = [*refused_lines(applying.before.refused, colours), *problem_lines(_warnings(applying), colours)]
    if applying.needed or dry_run:
        lines += change_lines(applying.changes, colours, terminal_columns())
    if lines:
        click.echo("\n".join(lines))


def _show_outcome(applying: Applying, file: Path, *, dry_run: bool) -> None:
    from fuseboard_streams.cli.render.applied import applied_lines

    version, before = applying.after.rules.version, applying.before.version
    replaced = None if applying.before.record is None else before
    lines = applied_lines(
        str(file), version, replaced, applying.record, applying.missing, dry_run=dry_run, paint=paint()
    )
    click.echo("\n".join(lines))


def _warnings(applying: Applying) -> Sequence[Problem]:
    return applying.after.warnings


def _as_json(applying: Applying) -> dict[str, Any]:
    from fuseboard_streams.cli.render.rules import problem_json

    record, missing = applying.record, applying.missing
    return {
        "ok": not missing,
        "version": applying.after.rules.version,
        "previous_version": applying.before.version,
        "written": record is not None,
        "applied_by": None if record is None else record.applied_by,
        "reason": None if record is None else record.reason,
        "problems": [problem_json(each) for each in _warnings(applying)],
        "refused": list(applying.before.refused),
        "changes": [dataclasses.asdict(each) for each in applying.changes],
        "missing": None if missing is None else [each.as_json() for each in missing],
    }
