"""``fuseboard completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from fuseboard_schemas.errors import ConfigurationError

_VARIABLE = "_FUSEBOARD_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of your shell.

    \b
    bash:  fuseboard completion bash > ~/.local/share/bash-completion/completions/fuseboard
    zsh:   fuseboard completion zsh > "${fpath[1]}/_fuseboard"
    fish:  fuseboard completion fish > ~/.config/fish/completions/fuseboard.fish
    """  # noqa: D301 - click wants the character
    completion = get_completion_class(shell)
    if completion is None:  # pragma: no cover - click knows the three shells above
        raise ConfigurationError(f"No completion for the shell {shell!r}: expected bash, zsh or fish.")
    root = ctx.find_root().command
    click.echo(completion(root, {}, "fuseboard", _VARIABLE).source())
