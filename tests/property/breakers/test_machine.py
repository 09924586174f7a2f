"""The machine against the plain model, in any order of events, with undo and restore in between."""

from __future__ import annotations

from copy import deepcopy

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Action, BreakerState, Scope
from fuseboard_streams.core.breaker import Breaker, Evidence, Moment, decode, encode
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.breakers import Breakers, Outcome
from fuseboard_streams.core.commands import to_command
from fuseboard_streams.core.ruleset import RecoveryPlan, Response, Rung
from tests.property.breakers.model import SECOND, Model

START = 1_795_435_200 * SECOND
TOOLS = st.sampled_from(["a", "b", "c"])
BASELINES = st.sampled_from([0.005, 0.06, 0.2, 0.5, 0.9])
RESULTS = st.one_of(st.lists(st.just(True), min_size=1, max_size=9), st.lists(st.booleans(), min_size=1, max_size=9))


def target(tool: str) -> Target:
    return Target(Scope.ACTOR_TOOL, "default", "agent", tool)


def key(tool: str) -> str:
    return f"ACTOR_TOOL:default/agent/{tool}"


class Life(RuleBasedStateMachine):
    """Small times, so that every transition comes up; half of the runs let late results count."""

    late_results = False

    def __init__(self) -> None:
        super().__init__()
        self.params = BreakerParams(
            base_cooldown_us=4 * SECOND + 1,
            max_cooldown_us=10 * SECOND,
            wave_us=3 * SECOND,
            probes=3,
            max_probes=9,
            forget_after_us=20 * SECOND,
            late_results=self.late_results,
        )
        plan = RecoveryPlan(
            cooldown_us=self.params.base_cooldown_us,
            max_cooldown_us=self.params.max_cooldown_us,
            probes=self.params.probes,
        )
        self.response = Response("r", (Rung(Action.DISABLE_TOOL),), recovery=plan)
        self.machine = Breakers(self.params)
        self.model = Model(self.params)
        self.now = START
        self.epochs: dict[str, list[int]] = {}
        self.saved: tuple[Model, int, dict[str, Breaker], dict[str, list[int]]] | None = None

    def published(self, breakers: tuple[Breaker, ...]) -> list[tuple[str, str]]:
        """What was published; the model learns the jitter from it."""
        for breaker in breakers:
            known = self.epochs.setdefault(breaker.breaker_id, [])
            if not breaker.forgotten:
                assert not known or breaker.epoch > known[-1]
                known.append(breaker.epoch)
            if breaker.state is BreakerState.OPEN:
                assert breaker.due is not None
                assert breaker.due >= breaker.decided_at + self.params.min_cooldown_us
                self.model.took(breaker.breaker_id, breaker.due)
        return [(b.breaker_id, "FORGOTTEN" if b.forgotten else b.state.value) for b in breakers]

    @rule(tool=TOOLS, p0=BASELINES)
    def trip(self, tool: str, p0: float) -> None:
        before = self.machine.get(key(tool))
        moment, evidence = Moment(self.now, "e", 1), Evidence(6.0, p0, 9, 8, self.now)
        fired = self.machine.fire(target(tool), moment, self.response, evidence)
        assert self.model.trip(key(tool), self.now, p0) == (fired.outcome is Outcome.TRIPPED) == bool(fired.changed)
        assert fired.changed or self.machine.get(key(tool)) is before
        self.published(fired.changed)

    @rule(tool=TOOLS, results=RESULTS, back=st.sampled_from([0, 0, 0, 1, 2, 5]))
    def probe(self, tool: str, results: list[bool], back: int) -> None:
        """Results for the newest epoch, whichever it is by then, or for one that was published earlier."""
        for ok in results:
            known = self.epochs.get(key(tool), [0])
            epoch = known[-1 - min(back, len(known) - 1)]
            got = self.machine.probe(key(tool), epoch, ok, Moment(self.now, "e", 2))
            expected = self.model.probe(key(tool), epoch, ok, self.now)
            assert self.published(got) == expected

    @precondition(lambda self: self.machine.open_ids())
    @rule(pick=st.integers(0, 2), results=RESULTS, clients=st.integers(0, 4))
    def recover(self, pick: int, results: list[bool], clients: int) -> None:
        """Wait until one of the open breakers is half-open, then probe it."""
        ids = self.machine.open_ids()
        tool = ids[pick % len(ids)][-1]
        for _ in range(8):
            breaker, due = self.machine.get(key(tool)), self.machine.next_due()
            assert due is not None
            if breaker is not None and breaker.state is BreakerState.HALF_OPEN:
                self.probe(tool, results, 0)
                break
            self.walk(due, clients)

    @rule(micros=st.integers(0, 3 * SECOND), clients=st.integers(0, 4))
    def advance(self, micros: int, clients: int) -> None:
        self.walk(self.now + micros, clients)

    @rule(seconds=st.integers(1, 40), clients=st.integers(0, 4))
    def leap(self, seconds: int, clients: int) -> None:
        self.walk(self.now + seconds * SECOND, clients)

    def walk(self, until: int, clients: int) -> None:
        """The model second by second, the machine only when something is due."""
        for second in range(self.now // SECOND + 1, until // SECOND + 1):
            due = self.machine.next_due()
            assert due == min((r["due"] for r in self.model.rows.values()), default=None)
            expected = self.model.second(second * SECOND, clients)
            if due == second * SECOND:
                assert self.published(self.machine.tick(due, lambda tenant, actor: clients)) == expected
            else:
                assert expected == []
        self.now = until

    @precondition(lambda self: self.saved is None)
    @rule()
    def begin(self) -> None:
        rows = {i: self.machine.get(i) for i in self.machine.ids()}
        self.machine.begin()
        self.saved = (deepcopy(self.model), self.now, {i: b for i, b in rows.items() if b}, deepcopy(self.epochs))

    @precondition(lambda self: self.saved is not None)
    @rule()
    def commit(self) -> None:
        assert self.saved is not None
        _, _, rows, _ = self.saved
        touched = {i for i in rows.keys() | set(self.machine.ids()) if rows.get(i) is not self.machine.get(i)}
        assert touched <= set(self.machine.changed())
        self.machine.commit()
        self.saved = None

    @precondition(lambda self: self.saved is not None)
    @rule()
    def rollback(self) -> None:
        assert self.saved is not None
        self.machine.rollback()
        self.model, self.now, rows, self.epochs = self.saved
        assert {i: self.machine.get(i) for i in self.machine.ids()} == rows
        assert all(self.machine.get(i) is b for i, b in rows.items())
        self.saved = None

    @precondition(lambda self: self.saved is None)
    @rule()
    def restore(self) -> None:
        """A successor that reads the state log goes on like its predecessor."""
        successor = Breakers(self.params)
        for breaker_id in reversed(self.machine.ids()):
            breaker = self.machine.get(breaker_id)
            assert breaker is not None
            assert decode(encode(breaker)) == breaker
            successor.put(decode(encode(breaker)))
        self.machine = successor

    @invariant()
    def agrees(self) -> None:
        assert self.machine.ids() == tuple(sorted(self.model.rows))
        assert self.machine.open_ids() == tuple(sorted(k for k, r in self.model.rows.items() if r["state"] != "CLOSED"))
        for breaker_id, row in self.model.rows.items():
            breaker = self.machine.get(breaker_id)
            assert breaker is not None
            assert (breaker.state, breaker.epoch, breaker.due) == (row["state"], row["epoch"], row["due"])
            assert (breaker.reopenings, breaker.quota) == (row["n"], row["quota"] if row["state"] == "HALF_OPEN" else 0)
            if row["state"] == "HALF_OPEN":
                assert breaker.wave == row["number"]
                assert breaker.test is not None
                assert (breaker.test.ok, breaker.test.failed) == (row["ok"], row["failed"])
            command = to_command(breaker, self.params)
            assert command is not None
            assert (command.epoch, command.probe_quota) == (breaker.epoch, breaker.quota)
            assert "\n" not in command.reason


class LifeWithLateResults(Life):
    late_results = True


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None, derandomize=True)
TestLifeWithLateResults = LifeWithLateResults.TestCase
TestLifeWithLateResults.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
