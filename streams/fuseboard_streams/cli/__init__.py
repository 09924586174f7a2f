"""The command line; sub-commands are imported only when they are called."""


def main() -> None:
    """Run the command line and exit with its code: 0 fine, 1 a check failed, 2 wrong usage, 3 a server is away."""
    from fuseboard_streams.cli.app import cli

    cli.main(prog_name="fuseboard")
