"""How often ticks are called, and where, shows in nothing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Action, Scope
from fuseboard_streams.core.breaker import Breaker, Evidence, Moment, encode
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.breakers import Breakers
from fuseboard_streams.core.commands import to_command
from fuseboard_streams.core.holds import cooldown_of
from fuseboard_streams.core.ruleset import Response, Rung

SECOND = 1_000_000
START = 1_795_435_200 * SECOND
PARAMS = BreakerParams(forget_after_us=90 * SECOND)
RESPONSE = Response("r", (Rung(Action.DISABLE_TOOL),), rules_version="v")


def clients(tenant: str, actor: str) -> int:
    return len(actor)


class Run:
    """One machine under one way of calling ticks; keeps everything it publishes."""

    def __init__(self, way: str) -> None:
        self.way, self.machine, self.now = way, Breakers(PARAMS), START
        self.log: list[Breaker] = []

    def wait(self, micros: int) -> None:
        until = self.now + micros
        last = until // SECOND * SECOND
        if self.way == "each second":
            for second in range(self.now // SECOND + 1, until // SECOND + 1):
                self.log += self.machine.tick(second * SECOND, clients)
        elif self.way == "when due":
            while (due := self.machine.next_due()) is not None and due <= last:
                self.log += self.machine.tick(due, clients)
        else:
            self.log += self.machine.tick(last, clients)
        self.now = until

    def event(self, target: Target, trips: bool, ok: bool) -> None:
        moment = Moment(self.now, "e", 1)
        known = [b for b in self.log if (b.tool, b.actor) == (target.tool, target.actor)]
        if trips:
            self.log += self.machine.fire(target, moment, RESPONSE, Evidence(6.1, 0.2, 9, 8, self.now)).changed
        elif known:
            self.log += self.machine.probe(known[-1].breaker_id, known[-1].epoch, ok, moment)


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 45 * SECOND),
        st.sampled_from(["a", "bb", "cccccc"]),
        st.sampled_from(["x", "y"]),
        st.sampled_from(["trip", "clean", "clean", "mixed"]),
        st.lists(st.booleans(), min_size=1, max_size=6),
    ),
    max_size=40,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(EVENTS)
def test_any_way_of_ticking_gives_the_same(events: list[tuple[int, str, str, str, list[bool]]]) -> None:
    runs = [Run("each second"), Run("when due"), Run("at the end"), Run("when due")]
    for run in runs:
        for gap, actor, tool, kind, results in events:
            run.wait(gap)
            for ok in results:
                run.event(Target(Scope.ACTOR_TOOL, "t", actor, tool), kind == "trip", ok or kind == "clean")
        run.wait(200 * SECOND)
    first = runs[0]
    for run in runs[1:]:
        assert run.log == first.log
        assert [to_command(b, PARAMS) for b in run.log] == [to_command(b, PARAMS) for b in first.log]
        assert [encode(b) for b in run.log] == [encode(b) for b in first.log]
        assert run.machine.ids() == first.machine.ids()


@given(st.integers(0, 10**12), st.integers(0, 80), st.text(min_size=1, max_size=5))
def test_no_cooldown_is_shorter_than_promised(offset: int, reopenings: int, tool: str) -> None:
    machine = Breakers(PARAMS)
    (opened,) = machine.fire(
        Target(Scope.TOOL, "t", tool=tool), Moment(START + offset), RESPONSE, Evidence(6.1, 0.02, 9, 8, START)
    ).changed
    assert opened.due is not None
    assert opened.due % SECOND == 0
    assert opened.due >= opened.decided_at + PARAMS.min_cooldown_us
    assert cooldown_of(RESPONSE.recovery, reopenings) == min(30 * SECOND * 2**reopenings, 300 * SECOND)
