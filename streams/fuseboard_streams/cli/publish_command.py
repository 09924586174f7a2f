"""``fuseboard publish``: send events from a JSONL file or standard input."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import click

from fuseboard_streams.cli.options import connection_options, json_option, paint, wants_colour
from fuseboard_streams.cli.publish_outcome import Outcome
from fuseboard_streams.cli.render.text import Paint, duration, plural, rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fuseboard_streams.cli.config import Connection
    from fuseboard_streams.cli.publishing import Assembler, Rebase
    from fuseboard_streams.cli.sending import Sender

if TYPE_CHECKING:
    _SpeedType = click.ParamType[float | None]
else:
    # Older releases of click have no type parameter there.
    _SpeedType = click.ParamType


class Speed(_SpeedType):
    """``max``, or a multiple of event time such as ``10`` or ``0.5``."""

    name = "speed"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:  # noqa: ANN401
        """Return the multiple, ``None`` for ``max``."""
        if value is None or value == "max":
            return None
        try:
            speed = float(str(value).removesuffix("x"))
        except ValueError:
            speed = 0.0
        if not 0.0 < speed < float("inf"):
            self.fail(f"{value!r}: expected max, or a multiple of event time above 0, e.g. 10.", param, ctx)
        return speed


@click.command("publish")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--record", metavar="NAME", help='What all lines are, e.g. tool-calls. [default: each line\'s "record"]')
@click.option(
    "--speed", type=Speed(), default="max", show_default=True, help="Multiple of event time, e.g. 10, or max."
)
@click.option("--keep-ids", is_flag=True, help="Keep client_id and seq of the file: repeats are then dropped as such.")
@click.option("--rebase", type=click.Choice(["first", "last"]), help="Shift times so that this event happens now.")
@json_option
@connection_options
def command(
    file: Path,
    record: str | None,
    speed: float | None,
    keep_ids: bool,
    rebase: Literal["first", "last"] | None,
    as_json: bool,
    connection: Connection,
) -> None:
    """Send the events in FILE, one JSON object per line; `-` reads standard input.

    Lines that cannot be used are named and skipped, and the exit code is then 1. Each run is a client of its own:
    sending a file twice counts twice, unless --keep-ids.
    """
    from fuseboard_streams.cli.publishing import Assembler, find_record
    from fuseboard_streams.cli.sending import Sender

    kind = None if record is None else find_record(record)
    if rebase == "first" and speed is None:
        raise click.UsageError(
            "--rebase first needs a --speed: at full speed the later events would lie in the future. "
            "Use --rebase last, or --speed 1."
        )
    outcome = Outcome(quiet=as_json)
    began = time.monotonic()
    client_id = secrets.randbits(64) - (1 << 63)
    with _opened(file, again=rebase is not None) as (stream, source):
        assemble = functools.partial(Assembler, source, kind, client_id, keep_ids=keep_ids)
        shift = None if rebase is None else _rebase(rebase, stream, source, assemble(), speed)
        with Sender(connection, outcome) as sender:
            _send_all(sender, stream, source, assemble(), shift, speed, outcome)
    _report(outcome, client_id, time.monotonic() - began, as_json)


@contextlib.contextmanager
def _opened(file: Path, *, again: bool) -> Iterator[tuple[BinaryIO, str]]:
    """Open the file, or standard input; kept on disk when it has to be read twice."""
    if str(file) != "-":
        with file.open("rb") as stream:
            yield stream, str(file)
    elif again:
        with tempfile.TemporaryFile() as copy:
            while chunk := sys.stdin.buffer.read(1 << 20):
                copy.write(chunk)
            copy.seek(0)
            yield copy, "<stdin>"
    else:
        if sys.stdin.isatty() and sys.stderr.isatty():
            click.echo("reading from the terminal, one JSON object per line; Ctrl-D ends it", err=True)
        yield sys.stdin.buffer, "<stdin>"


def _rebase(
    anchor: Literal["first", "last"], stream: BinaryIO, source: str, assembler: Assembler, speed: float | None
) -> Rebase | None:
    """Read the whole file once for its first and last time, and return the shift; ``None`` without any event."""
    from fuseboard_streams.cli.publishing import Prepared, Rebase
    from fuseboard_streams.records_io import Line, read_lines

    first, last = None, None
    for item in read_lines(stream, source):
        prepared = assembler.prepare(item) if isinstance(item, Line) else item
        if isinstance(prepared, Prepared):
            ts = prepared.record.ts
            first = ts if first is None else min(first, ts)
            last = ts if last is None else max(last, ts)
    stream.seek(0)
    if first is None or last is None:
        return None
    return Rebase(anchor, first, last, time.time_ns() // 1_000, speed)


def _send_all(
    sender: Sender,
    stream: BinaryIO,
    source: str,
    assembler: Assembler,
    shift: Callable[[int], int] | None,
    speed: float | None,
    outcome: Outcome,
) -> None:
    """Send every usable line of a stream."""
    from fuseboard_streams.cli.publishing import Pacer
    from fuseboard_streams.records_io import Problem, read_lines

    pacer = None if speed is None else Pacer(speed)
    with _progress(stream) as advance:
        for item in read_lines(stream, source):
            if isinstance(item, Problem):
                outcome.skip(item)
                continue
            advance(item.size)
            prepared = assembler.prepare(item, shift)
            if isinstance(prepared, Problem):
                outcome.skip(prepared)
                continue
            if pacer is not None:
                sender.wait(pacer, prepared.file_ts)
            sender.send(prepared, source)


@contextlib.contextmanager
def _progress(stream: BinaryIO) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal, for a file whose size is known; yield the function that advances it."""
    try:
        size = os.fstat(stream.fileno()).st_size if stream.seekable() else 0
    except OSError:
        size = 0
    if not size or not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("publish", total=size)
        yield lambda count: bar.advance(task, count)


def _report(outcome: Outcome, client_id: int, took_s: float, as_json: bool) -> None:
    """Print what has been sent and skipped, and exit with 1 if anything was skipped."""
    total = sum(outcome.sent.values())
    if as_json:
        summary = {
            "sent": total,
            "topics": outcome.sent,
            "skipped": outcome.skipped,
            "problems": [problem.as_json() for problem in outcome.problems],
            "client_id": f"{client_id & 0xFFFF_FFFF_FFFF_FFFF:016x}",
            "duration_s": round(took_s, 3),
        }
        click.echo(json.dumps(summary, ensure_ascii=False))
    else:
        topics = ", ".join(f"{count:,} to {topic}" for topic, count in sorted(outcome.sent.items()))
        text = f"{plural(total, 'record')} sent and confirmed in {duration(int(took_s * 1_000_000))}"
        if took_s > 1 and total > 1:
            text += f" ({rate(total / took_s)})"
        if total:
            text += f": {topics}"
        click.echo(paint()(text, "green" if total else ""))
        if outcome.skipped:
            warning = Paint(wants_colour(sys.stderr))
            click.echo(warning(f"{plural(outcome.skipped, 'line')} skipped", "yellow"), err=True)
    if outcome.skipped:
        raise click.exceptions.Exit(1)
