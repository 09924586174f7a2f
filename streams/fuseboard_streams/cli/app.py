"""The root command: a table of sub-commands, imported one by one, and the one place where errors become exit codes."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from fuseboard_schemas.errors import ConfigurationError, FuseboardError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXTRA_OF: Final = {
    "numpy": "worker",
    "polars": "worker",
    "prometheus_client": "worker",
    "pydantic": "worker",
    "pydantic_settings": "worker",
    "rich": "worker",
    "structlog": "worker",
    "yaml": "worker",
    "httpx": "registry",
    "authlib": "registry",
    "cachetools": "registry",
    "attr": "registry",
    "attrs": "registry",
    "noida_db": "demo",
}
"""Top-level module to the extra that installs it."""

EXIT_INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where a sub-command lives, and the one line that ``--help`` shows without importing it."""

    module: str
    section: str
    help: str


COMMANDS: Final = {
    "demo": LazyCommand("demo_command", "Try", "Watch a breaker trip, refuse a call and recover, with no server."),
    "top": LazyCommand("top_command", "Watch", "Live view: event rate, lag, workers, open breakers, transitions."),
    "tap": LazyCommand("tap_command", "Watch", "Decode a topic live, one line per record."),
    "breakers": LazyCommand(
        "breakers_command", "Watch", "List or show breakers; trip, reset, hold, bypass or acknowledge one."
    ),
    "actors": LazyCommand("actors_command", "Watch", "Show one actor: its breakers, findings, calls and rules."),
    "runbook": LazyCommand("runbook_command", "Watch", "Print what to do about an open breaker."),
    "doctor": LazyCommand("doctor_command", "Watch", "Check brokers, topics, schemas, clock and lag."),
    "worker": LazyCommand("worker_command", "Run", "Run the stream processor that trips breakers."),
    "publish": LazyCommand("publish_command", "Run", "Send events from a JSONL file or standard input."),
    "rules": LazyCommand("rules_command", "Run", "Check, explain, compare, apply and show rules."),
    "topics": LazyCommand("topics_command", "Run", "Plan or apply the topics Fuseboard needs."),
    "schema": LazyCommand("schema_command", "Run", "List, show, check or register the Avro schemas."),
    "completion": LazyCommand("completion_command", "Other", "Print the completion script of your shell."),
    "version": LazyCommand("version_command", "Other", "Print the versions of Fuseboard and of what it runs on."),
}
"""Every sub-command, in the order ``--help`` shows them."""


@dataclass(slots=True)
class RunState:
    """What one invocation shares between the root command and its sub-commands."""

    debug: bool = False


class MissingExtraError(ConfigurationError):
    """A command needs packages that the base install does not carry."""

    def __init__(self, module: str, command: str | None) -> None:
        extra = EXTRA_OF[module]
        what = f"`fuseboard {command}`" if command else "This command"
        super().__init__(
            f"{what} needs the Python package {module!r}, which is not installed here. It belongs to the extra "
            f"{extra!r}: install it with `pip install 'fuseboard[{extra}]'`."
        )


class LazyGroup(click.Group):
    """A click group whose commands come from a table and whose errors are one paragraph each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command and return it."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        try:
            module = importlib.import_module(f"fuseboard_streams.cli.{entry.module}")
        except ModuleNotFoundError as error:
            raise _missing(error, cmd_name) from error
        command = module.command
        if not isinstance(command, click.Command):  # pragma: no cover - a mistake in the table above
            raise TypeError(f"{entry.module}.command is no click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was probably meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f"Did you mean {close[0]!r}?" if close else f"The commands are {', '.join(COMMANDS)}."
            raise click.UsageError(f"No such command {args[0]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table by section, without importing a single sub-command."""
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items() if entry.section == section])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,  # noqa: ANN401 - click's own signature
    ) -> Any:  # noqa: ANN401 - click's own signature
        """Run one invocation; in standalone mode exit with its code and never show a traceback without ``--debug``."""
        state = RunState(debug=os.environ.get("FUSEBOARD_DEBUG", "") not in ("", "0"))
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, obj=state, **extra)
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, obj=state, **extra)
            sys.stdout.flush()
        except (KeyboardInterrupt, click.Abort):
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            # The reader (`head`, a pager) has seen enough; Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(0)
        except Exception as error:
            if state.debug and not isinstance(error, click.ClickException):
                raise
            sys.exit(report(error))
        sys.exit(result if isinstance(result, int) else 0)


def report(error: Exception) -> int:
    """Write an error to standard error as one paragraph and return the exit code it stands for."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in EXTRA_OF:
        error = _missing(error, None)
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, FuseboardError):
        _paragraph(str(error))
        return error.exit_code
    if type(error).__module__.partition(".")[0] in ("confluent_kafka", "cimpl"):
        from fuseboard_streams.kafka_errors import explain

        return report(explain(error, "while talking to it", {"bootstrap.servers": "the configured address"}))
    if isinstance(error, OSError) and error.filename is not None:
        _paragraph(f"{error.filename}: {error.strerror or error}. Check that the path is right and may be used.")
        return ConfigurationError.exit_code
    _paragraph(
        f"Unexpected {type(error).__name__}: {error}. This is a mistake in Fuseboard, not in what you typed: "
        f"run the same command as `fuseboard --debug …` and report the traceback it prints."
    )
    return 1


def _paragraph(text: str) -> None:
    """Write one error paragraph to standard error, control characters made visible."""
    from fuseboard_streams.cli.render.text import printable

    click.echo(f"{click.style('Error:', fg='red', bold=True)} {printable(' '.join(text.split()))}", err=True)


def _missing(error: ModuleNotFoundError, command: str | None) -> Exception:
    """Return the error that names the extra to install, or the original one if no extra has the module."""
    name = (error.name or "").partition(".")[0]
    return MissingExtraError(name, command) if name in EXTRA_OF else error


def _debug(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    """Remember ``--debug`` for the error handler of the root command."""
    if value and isinstance(ctx.obj, RunState):
        ctx.obj.debug = True


def _version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    """Print the version that is installed and stop."""
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"fuseboard {version('fuseboard')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "Every command takes -h, and all that print a result take --json. Options can also be set as environment "
        "variables (FUSEBOARD_…, shown by each command's --help) or in a TOML file (--config). Exit codes: 0 fine, "
        "1 a check failed, 2 wrong usage or configuration, 3 a server cannot be reached."
    ),
)
@click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=_debug,
    help="Show the traceback of an error. [FUSEBOARD_DEBUG]",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and stop; `fuseboard version` shows more.",
)
def cli() -> None:
    """Circuit breakers for AI agents.

    Start with `fuseboard demo`; against your own Kafka: `fuseboard topics apply`, then `fuseboard worker`.
    """
