"""``fuseboard top``: the live view."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from fuseboard_streams.cli.options import connection_options, json_option, paint, terminal_columns

if TYPE_CHECKING:
    from fuseboard_streams.cli.config import Connection
    from fuseboard_streams.cli.monitor import Watch
    from fuseboard_streams.cli.render.top import Snapshot


@click.command("top")
@click.option("--once", is_flag=True, help="Print one snapshot and stop.")
@click.option(
    "--interval", type=click.FloatRange(min=0.2), default=1.0, show_default=True, help="Seconds between views."
)
@json_option
@connection_options
def command(once: bool, interval: float, as_json: bool, connection: Connection) -> None:
    """Watch event rate, lag, workers, breakers, evidence, objectives and transitions live; Ctrl-C ends it.

    Reads the topics only: it needs no worker's address. If the brokers go away it goes on, says since when it has heard
    nothing, and catches up when they are back. With --json, one object per view.
    """
    live = not (once or as_json)
    if live:
        if not sys.stdout.isatty():
            raise click.UsageError("Standard output is no terminal: use `fuseboard top --once`, or --json.")
        # Before anything is read: without the package there is no view.
        import rich.live  # noqa: F401
    from fuseboard_streams.cli.monitor import Monitor, Watch

    watch = Watch(lambda: Monitor(connection))
    try:
        if live:
            _live(watch, interval)
        else:
            _print(watch, once, interval, as_json)
    finally:
        watch.close()


def _print(watch: Watch, once: bool, interval: float, as_json: bool) -> None:
    """Print one snapshot, or one JSON object per interval."""
    from fuseboard_streams.cli.render.top import top_lines

    while True:
        snapshot = watch.snapshot()
        if as_json:
            click.echo(json.dumps(snapshot_json(snapshot), ensure_ascii=False))
        else:
            click.echo("\n".join(top_lines(snapshot, paint(), terminal_columns())))
        if once:
            return
        watch.wait(interval)


def snapshot_json(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot as JSON, breakers and transitions in their JSON form."""
    from fuseboard_schemas.jsonform import to_json
    from fuseboard_streams.cli.objective_states import state_of

    return {
        **snapshot.as_json(),
        "open_breakers": [
            {**to_json(c), "can_be_probed": snapshot.probed.get(c.breaker_id)} for c in snapshot.open_breakers
        ],
        "transitions": [to_json(c) for c in snapshot.transitions],
        "watched": [to_json(signal) for signal in snapshot.watched],
        "objectives": [{"state": state_of(signal), **to_json(signal)} for signal in snapshot.objectives],
    }


def _live(watch: Watch, interval: float) -> None:
    """Redraw the terminal until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from fuseboard_streams.cli.render.top import top_lines

    colours = paint()

    def draw() -> Text:
        size = shutil.get_terminal_size()
        lines = top_lines(watch.snapshot(), colours, size.columns, size.lines - 1)
        return Text.from_ansi("\n".join(lines), no_wrap=True)

    with Live(draw(), console=Console(), screen=True, auto_refresh=False) as live:
        while True:
            watch.wait(interval)
            live.update(draw(), refresh=True)
