"""What the terminal shows."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fuseboard_streams.cli.config import Connection
from fuseboard_streams.demo.run import CORE
from fuseboard_streams.demo.screen import Screen
from fuseboard_streams.demo.story import Story
from tests.unit.demo.moments import ACTOR, START, TOOL, enforcement, recovery

FACTS = {
    "events": 5_814,
    "events_lost": 0,
    "tool_calls": 1_604,
    "same_trip": True,
    "setup_s": 3.9,
    "duration_s": 19.2,
    "other_actors": {"calls": 57},
    "healthy": [
        {"actor": ACTOR, "tool": tool, "calls": calls, "failures": failures, "null_p0": 0.2684, "log10": log10}
        for tool, calls, failures, log10 in (
            ("book_reservation", 33, 23, 3.8),
            ("update_reservation_flights", 34, 12, 2.5),
        )
    ],
}


def shown(width: int, *, succeeded: bool = True) -> str:
    out = io.StringIO()
    screen = Screen(console=Console(file=out, width=width, highlight=False, force_terminal=False))
    story = Story(ACTOR, TOOL)
    screen.title()
    screen.begin(START)
    story.begin_outage(START)
    for moment in enforcement() + (recovery() if succeeded else []):
        for act in story.take(moment):
            screen.act(act)
    screen.summary(story, FACTS, CORE)
    screen.next_steps(None, story)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_every_line_fits_and_none_has_trailing_blanks(width: int) -> None:
    lines = shown(width).splitlines()

    assert max(map(len, lines)) <= width
    assert [line for line in lines if line != line.rstrip()] == []


def test_plain_output_has_no_escape_codes() -> None:
    assert "\x1b" not in shown(80)


def test_the_story_and_the_figures_are_there() -> None:
    text = shown(120)

    assert "1.00 s  TRIP" in text
    assert "1.02 s  enforced" in text
    assert "13 ms  until the command can be read committed" in text
    assert "23 = 70%" in text
    assert "a warning takes 10^4, a trip 10^6" in text
    assert "trips at the same call" in text
    assert "One trip, the right one. 2 calls were refused" in text
    assert "fuseboard demo --keep" in text


def test_a_failure_is_said() -> None:
    text = shown(120, succeeded=False)

    assert "This did not go as it should: the tool did not come back in time." in text
    assert "the right one" not in text


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(quiet=True)

    screen.title()
    screen.line("set up", "something")
    with screen.waiting("for something"):
        screen.update("still")

    assert capsys.readouterr().out == ""


def test_a_connection_of_ones_own_is_named_with_its_prefix() -> None:
    class Kept:
        connection = Connection("kafka:9092", "fuseboard.demo-1.")
        embedded = False

    out = io.StringIO()
    screen = Screen(console=Console(file=out, width=80, highlight=False))

    screen.next_steps(Kept(), Story(ACTOR, TOOL))  # type: ignore[arg-type]

    line = next(line for line in out.getvalue().splitlines() if "fuseboard top" in line)
    assert "--bootstrap kafka:9092 --prefix fuseboard.demo-1." in line
