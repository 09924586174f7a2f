"""What has become of the lines that ``publish`` was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from fuseboard_streams.cli.render.text import printable

if TYPE_CHECKING:
    from fuseboard_streams.records_io import Problem

_SHOWN_PROBLEMS: Final = 20
_KEPT_PROBLEMS: Final = 1_000


class Outcome:
    """What has become of the lines so far."""

    def __init__(self, *, quiet: bool) -> None:
        self.sent: dict[str, int] = {}
        self.skipped = 0
        self.problems: list[Problem] = []
        self._quiet = quiet

    def skip(self, problem: Problem) -> None:
        """Count a line that could not be used, and say why."""
        self.skipped += 1
        if len(self.problems) < _KEPT_PROBLEMS:
            self.problems.append(problem)
        if not self._quiet and self.skipped <= _SHOWN_PROBLEMS:
            click.echo(printable(str(problem)), err=True)
        if not self._quiet and self.skipped == _SHOWN_PROBLEMS + 1:
            click.echo("… further lines that cannot be used are only counted", err=True)

    def confirm(self, topic: str) -> None:
        """Count a record that the broker has confirmed."""
        self.sent[topic] = self.sent.get(topic, 0) + 1
