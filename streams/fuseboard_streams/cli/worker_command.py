"""``fuseboard worker``: run the stream processor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from fuseboard_streams.cli.options import config_file, connection_options

if TYPE_CHECKING:
    from fuseboard_streams.cli.config import Connection


@click.command("worker")
@click.option(
    "--group",
    envvar="FUSEBOARD_GROUP",
    show_envvar=True,
    help="Consumer group; its workers share the partitions. [default: fuseboard]",
)
@click.option(
    "--instance-id",
    envvar="FUSEBOARD_INSTANCE_ID",
    show_envvar=True,
    help="Stable name: a quick restart gets its shards back without a rebalance.",
)
@click.option(
    "--worker-id",
    envvar="FUSEBOARD_WORKER_ID",
    show_envvar=True,
    help="Name in heartbeats and logs. [default: host name and a random part]",
)
@click.option(
    "--rules",
    metavar="FILE",
    envvar="FUSEBOARD_RULES",
    show_envvar=True,
    help="Rules file to use instead of what `fuseboard rules apply` has published; it is watched. For development.",
)
@click.option("--until-end", is_flag=True, default=None, help="Process what is there at the start, then stop.")
@click.option(
    "--http-host", envvar="FUSEBOARD_HTTP_HOST", show_envvar=True, help="Where to serve HTTP. [default: 127.0.0.1]"
)
@click.option(
    "--http-port",
    type=click.IntRange(0, 65_535),
    envvar="FUSEBOARD_HTTP_PORT",
    show_envvar=True,
    help="Port of /healthz, /readyz and /metrics; 0 picks a free one. [default: 9464]",
)
@click.option("--no-http", is_flag=True, help="Serve no HTTP.")
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "console"]),
    envvar="FUSEBOARD_LOG_FORMAT",
    show_envvar=True,
    help="console on a terminal and JSON elsewhere, unless said.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    envvar="FUSEBOARD_LOG_LEVEL",
    show_envvar=True,
    help="Least level that is logged. [default: info]",
)
@connection_options
@click.pass_context
def command(ctx: click.Context, /, connection: Connection, no_http: bool, **options: Any) -> int:  # noqa: ANN401
    """Run the stream processor: reads events, trips breakers, brings them back.

    Start as many as you like, up to one per partition; the partitions are shared and move by themselves. Stop one with
    SIGTERM or Ctrl-C. Every setting can also stand in the --config file or in the environment as FUSEBOARD_<NAME>.
    """
    from fuseboard_streams.worker.settings import load_settings

    overrides: dict[str, Any] = {
        **options,
        "bootstrap": _given(ctx, "bootstrap", connection.bootstrap),
        "prefix": _given(ctx, "prefix", connection.prefix),
        "kafka": dict(connection.kafka),
        "registry": dict(connection.registry),
        "http": False if no_http else None,
    }
    settings = load_settings(config_file(ctx), overrides)
    from fuseboard_streams.worker import run_worker

    return run_worker(settings)


def _given(ctx: click.Context, name: str, value: str) -> str | None:
    """Return an option's value unless it is only the default: then [worker] in the file may still say otherwise."""
    return None if ctx.get_parameter_source(name) is ParameterSource.DEFAULT else value
