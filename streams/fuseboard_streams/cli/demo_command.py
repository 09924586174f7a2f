"""``fuseboard demo``."""

from __future__ import annotations

import click

from fuseboard_streams.cli.options import json_option


@click.command("demo")
@click.option(
    "--bootstrap",
    metavar="HOST:PORT,…",
    help="Use these brokers instead of an embedded one; the topics get a prefix of their own.",
)
@click.option("--keep", is_flag=True, help="Leave it running at the end, until Ctrl-C.")
@json_option
def command(bootstrap: str | None, keep: bool, as_json: bool) -> None:
    """Watch the whole loop with no server of your own, in under a minute.

    Replays recorded tool calls of a GPT-4o agent through the SDK, breaks one tool, and shows the trip, the refusal,
    the acknowledgement, the probes and the recovery as they happen.
    """
    from fuseboard_streams.demo import run_demo

    code = run_demo(bootstrap=bootstrap, keep=keep, as_json=as_json)
    if code:
        raise click.exceptions.Exit(code)
