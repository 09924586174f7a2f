"""The recorded agents: what they ask of the SDK before their first call."""

from fuseboard_schemas.records import Scope
from fuseboard_streams.demo.agents import Agent, Pace
from fuseboard_streams.demo.airline import EFFECTS, Outage
from fuseboard_streams.demo.run import ACTOR, TOOL
from tests.unit.sdk.support import world


def test_the_breakers_of_its_tools_are_followed_before_the_first_call() -> None:
    """Else its first calls are let through with a warning each, which is the first thing that a new user reads."""
    there = world()
    Agent(there.fuse, Pace(1.0), Outage(TOOL, ACTOR, 0.5, 1), lambda _: None, 1.0)
    tools = {wanted.rpartition("/")[2] for wanted in there.view.interests if wanted.startswith(Scope.TOOL + ":")}
    assert tools == set(EFFECTS)
