"""``fuseboard doctor``: check everything the loop depends on, and say what to do."""

from __future__ import annotations

import collections
import dataclasses
import json
from typing import TYPE_CHECKING

import click

from fuseboard_streams.cli.options import connection_options, json_option, paint, terminal_columns

if TYPE_CHECKING:
    from fuseboard_streams.cli.config import Connection


@click.command("doctor")
@click.option(
    "--group",
    default="fuseboard",
    show_default=True,
    envvar="FUSEBOARD_GROUP",
    show_envvar=True,
    help="The workers' consumer group, where no heartbeat names it.",
)
@click.option(
    "--listen",
    "listen_s",
    type=click.FloatRange(min=0.1),
    default=3.0,
    show_default=True,
    help="Seconds to wait for heartbeats.",
)
@json_option
@connection_options
def command(group: str, listen_s: float, as_json: bool, connection: Connection) -> None:
    """Check broker, topics, partitions, schemas, clocks, heartbeats and lag, and say what to do.

    Changes nothing. Exits with 1 if a check fails, 2 if the configuration is wrong, 3 if a server cannot be reached.
    What cannot be checked is shown as such, with the reason, and does not change the exit code.
    """
    from fuseboard_streams import doctor
    from fuseboard_streams.cli.render.doctor import checks_lines

    if not group:
        raise click.BadParameter("expected the name of a consumer group, e.g. fuseboard.", param_hint="--group")
    settings = connection.client_settings()
    checks = doctor.examine(settings, connection.prefix, group=group, registry=connection.registry, listen_s=listen_s)
    code = doctor.exit_code(checks)
    if as_json:
        counts = collections.Counter(check.status for check in checks)
        rows = [
            {"status": check.status, **dataclasses.asdict(check), "exit_code": doctor.exit_code([check])}
            for check in checks
        ]
        shown = {
            "ok": code == 0,
            "passed": counts["ok"],
            "failed": counts["failed"],
            "unchecked": counts["unchecked"],
            "checks": rows,
        }
        click.echo(json.dumps(shown, ensure_ascii=False))
    else:
        click.echo("\n".join(checks_lines(checks, paint(), terminal_columns())))
    if code:
        raise click.exceptions.Exit(code)
