"""Options that several commands share."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fuseboard_streams.cli.app import MissingExtraError, RunState
from fuseboard_streams.cli.config import (
    DEFAULT_BOOTSTRAP,
    DEFAULT_PREFIX,
    SECTIONS,
    WORKER_SETTINGS,
    connect,
    load_toml,
    registry_from_environment,
    section,
    unknown_setting,
)
from fuseboard_streams.cli.render.text import Paint

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

F = TypeVar("F", bound="Callable[..., Any]")

_FILE = "fuseboard.config_file"


def _load_config(ctx: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Read ``--config`` before the other options, whose defaults it supplies."""
    file = load_toml(path) if path else {}
    if path:
        _expect_known(file, ctx.command, path)
    ctx.meta[_FILE] = file
    plain = {key: value for key, value in file.items() if not isinstance(value, dict)}
    ctx.default_map = {**plain, **(ctx.default_map or {})}
    return path


def _expect_known(file: dict[str, Any], command: click.Command, path: Path) -> None:
    """Refuse a key that neither a worker nor any command reads: it would be taken for set.

    Raises:
        ConfigurationError: There is one.
    """
    known = WORKER_SETTINGS | SECTIONS | _names(command)
    unknown = [key for key in file if key not in known]
    if not unknown:
        return
    # One file may serve all commands, whose options need not be known to each other until here.
    root = click.get_current_context().find_root().command
    known |= _names(root)
    for key in unknown:
        if key not in known:
            raise unknown_setting(key, known, path)


def _names(command: click.Command) -> frozenset[str]:
    """Return the names of a command's options and of its sub-commands'; of what is not installed none."""
    found = frozenset(each.name for each in command.params if each.name)
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            with contextlib.suppress(MissingExtraError):
                below = command.get_command(ctx, name)
                found |= frozenset() if below is None else _names(below)
    return found


def config_file(ctx: click.Context) -> dict[str, Any]:
    """Return the content of the configuration file of this invocation, empty without one."""
    content: dict[str, Any] = ctx.meta.get(_FILE, {})
    return content


def _set_debug(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    """Let ``--debug`` stand after the sub-command too."""
    state = ctx.find_root().obj
    if value and isinstance(state, RunState):
        state.debug = True


_debug_option = click.option(
    "--debug",
    is_flag=True,
    hidden=True,
    expose_value=False,
    callback=_set_debug,
    help="Show the traceback of an error.",
)

_prefix_option = click.option(
    "--prefix",
    default=DEFAULT_PREFIX,
    show_default=True,
    metavar="TEXT",
    envvar="FUSEBOARD_PREFIX",
    show_envvar=True,
    help="What all topic names start with.",
)
_config_option = click.option(
    "--config",
    is_eager=True,
    expose_value=False,
    callback=_load_config,
    type=click.Path(path_type=Path),
    metavar="FILE",
    envvar="FUSEBOARD_CONFIG",
    show_envvar=True,
    help="TOML file with the same settings, [kafka] and [registry] sections.",
)


def connection_options(function: F) -> F:
    """Add the options that say how to reach Kafka; the command receives them as ``connection: Connection``."""

    @click.option(
        "--bootstrap",
        default=DEFAULT_BOOTSTRAP,
        show_default=True,
        metavar="HOST:PORT,…",
        envvar="FUSEBOARD_BOOTSTRAP",
        show_envvar=True,
        help="Kafka brokers.",
    )
    @_prefix_option
    @click.option(
        "-X",
        "pairs",
        multiple=True,
        metavar="KEY=VALUE",
        help="A librdkafka setting (TLS, SASL, …); may be repeated.  [env var: FUSEBOARD_KAFKA__<KEY>]",
    )
    @_config_option
    @_debug_option
    @functools.wraps(function)
    def wrapper(*args: Any, bootstrap: str, prefix: str, pairs: tuple[str, ...], **rest: Any) -> Any:  # noqa: ANN401
        file = config_file(click.get_current_context())
        return function(*args, connection=connect(bootstrap, prefix, pairs, file), **rest)

    return wrapper  # type: ignore[return-value]  # click's decorators keep no signature


def registry_options(function: F) -> F:
    """Add the options that say how to reach a schema registry; the command receives ``registry: dict[str, str]``.

    The dict has the client's settings; without ``url`` there is no registry.
    """

    @click.option(
        "--registry",
        metavar="URL",
        envvar="FUSEBOARD_REGISTRY__URL",
        show_envvar=True,
        help="A registry with Confluent's API; its other settings: FUSEBOARD_REGISTRY__<KEY>, [registry] in the file.",
    )
    @_prefix_option
    @_config_option
    @_debug_option
    @functools.wraps(function)
    def wrapper(*args: Any, registry: str | None, **rest: Any) -> Any:  # noqa: ANN401
        file = config_file(click.get_current_context())
        settings = section(file, "registry") | registry_from_environment(os.environ)
        return function(*args, registry=settings | ({"url": registry} if registry else {}), **rest)

    return wrapper  # type: ignore[return-value]  # click's decorators keep no signature


json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


def wants_colour(stream: TextIO) -> bool:
    """Return whether to colour output on ``stream``: a terminal, unless NO_COLOR or a dumb one; FORCE_COLOR wins."""
    if os.environ.get("FORCE_COLOR"):
        return True
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def paint() -> Paint:
    """Return the colours for standard output."""
    return Paint(wants_colour(sys.stdout))


def terminal_columns() -> int | None:
    """Return the width of the terminal, ``None`` when output goes elsewhere and must not be cut."""
    return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else None
