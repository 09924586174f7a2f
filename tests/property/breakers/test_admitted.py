"""How many probe calls a broken target can get, whatever enforcers and the network do.

Enforcers see the published commands one after the other, each with its own delay, and admit at most the quota under
each epoch they know. Results come back in any order, or never. Counted are the calls admitted in one half-open period.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Action, BreakerCommand, BreakerState, Scope
from fuseboard_streams.core.breaker import Breaker, Evidence, Moment
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.breakers import Breakers
from fuseboard_streams.core.commands import to_command
from fuseboard_streams.core.ruleset import Response, Rung

SECOND = 1_000_000
START = 1_795_435_200 * SECOND
RESPONSE = Response("r", (Rung(Action.DISABLE_TOOL),))


@dataclass
class Enforcer:
    """Obeys the newest command it has seen."""

    inbox: list[BreakerCommand] = field(default_factory=list)
    known: BreakerCommand | None = None
    admitted: int = 0

    def see(self) -> None:
        if self.inbox:
            command = self.inbox.pop(0)
            if self.known is None or command.epoch > self.known.epoch:
                self.known, self.admitted = command, 0

    def admit(self) -> int | None:
        """The epoch under which one more call may pass now; None: refused."""
        if self.known is None or self.known.state is not BreakerState.HALF_OPEN:
            return None
        if self.admitted >= self.known.probe_quota:
            return None
        self.admitted += 1
        return self.known.epoch


class World:
    def __init__(self, enforcers: int, clients: int, p0: float, params: BreakerParams) -> None:
        self.params, self.clients = params, clients
        self.breakers = Breakers(params)
        self.enforcers = [Enforcer() for _ in range(enforcers)]
        self.flying: list[int] = []
        self.now = START
        self.admitted: Counter[int] = Counter()  # by epoch
        self.counted: Counter[int] = Counter()  # by epoch: results that entered the test
        self.waves: dict[int, list[Breaker]] = {}  # by period
        self.lapsed: set[int] = set()  # epochs of waves that time ended
        (opened,) = self.breakers.fire(
            Target(Scope.ACTOR_TOOL, "t", "a", "x"), Moment(START), RESPONSE, Evidence(6.0, p0, 9, 8, START)
        ).changed
        self.key = opened.breaker_id
        self.publish((opened,))

    def publish(self, transitions: tuple[Breaker, ...]) -> None:
        for breaker in transitions:
            if breaker.period:
                self.waves.setdefault(breaker.period, []).append(breaker)
            command = to_command(breaker, self.params)
            assert command is not None
            for enforcer in self.enforcers:
                enforcer.inbox.append(command)

    def call(self, who: int) -> None:
        epoch = self.enforcers[who % len(self.enforcers)].admit()
        if epoch is not None:
            self.admitted[epoch] += 1
            self.flying.append(epoch)

    def result(self, which: int, ok: bool) -> None:
        if not self.flying:
            return
        epoch = self.flying.pop(which % len(self.flying))
        before = self.breakers.get(self.key)
        self.publish(self.breakers.probe(self.key, epoch, ok, Moment(self.now)))
        if self.breakers.get(self.key) is not before:
            self.counted[epoch] += 1

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += SECOND
            before = self.breakers.get(self.key)
            done = self.breakers.tick(self.now, lambda tenant, actor: self.clients)
            if done and before is not None and before.state is BreakerState.HALF_OPEN:
                self.lapsed.add(before.epoch)
            self.publish(done)

    def check(self) -> None:
        """Admitted <= 40 + quota x enforcers, plus what waves ended by time admitted without a counted result."""
        for waves in self.waves.values():
            epochs = [wave.epoch for wave in waves]
            total = sum(self.admitted[epoch] for epoch in epochs)
            unanswered = sum(self.admitted[e] - self.counted[e] for e in epochs if e in self.lapsed)
            share = waves[-1].quota * len(self.enforcers)
            assert sum(self.counted[e] for e in epochs) <= self.params.max_probes
            assert total <= self.params.max_probes + share + unanswered
            assert unanswered <= share * sum(e in self.lapsed for e in epochs)
            for epoch in epochs:
                assert self.admitted[epoch] <= share


RATES = {0.005: 0.079, 0.5: 0.772, 0.9: 0.9645}
"""Baseline to the failure rate at which the test drifts neither way: periods are as long as they can be."""


def play(world: World, seed: int, rate: float, loss: float) -> None:
    """A long random history, with phases of different speed."""
    random = Random(seed)
    for _ in range(30):
        speed = {what: random.random() ** 2 for what in ("see", "call", "result")}
        wait = random.choice([0, 0, 1, 7, 31])
        for _ in range(random.randrange(40)):
            who = random.randrange(len(world.enforcers))
            if random.random() < speed["see"]:
                for enforcer in world.enforcers:
                    for _ in range(random.randrange(3)):
                        enforcer.see()
            if random.random() < speed["call"]:
                for i in range(len(world.enforcers)):
                    world.call(who + i)
            for _ in range(len(world.flying)):
                if random.random() < speed["result"]:
                    world.result(random.randrange(400), random.random() >= rate)
            if world.flying and random.random() < loss:
                world.flying.pop(random.randrange(len(world.flying)))
        world.wait(wait)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    clients=st.integers(1, 25),
    quiet=st.integers(0, 24),
    p0=st.sampled_from(sorted(RATES)),
    loss=st.sampled_from([0.0, 0.1, 1.0]),
    late_results=st.booleans(),
)
def test_admitted_calls_are_bounded(
    seed: int, clients: int, quiet: int, p0: float, loss: float, late_results: bool
) -> None:
    """No more enforcers than clients counted; any delay, any order, any loss."""
    world = World(max(1, clients - quiet), clients, p0, BreakerParams(late_results=late_results))
    play(world, seed, RATES[p0], loss)
    world.check()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), clients=st.integers(1, 25), p0=st.sampled_from(sorted(RATES)))
def test_greedy_enforcers_get_forty_and_a_quota_each(seed: int, clients: int, p0: float) -> None:
    """Everybody takes all it may at once, and results come back within their wave: the promise without conditions."""
    world, random = World(clients, clients, p0, BreakerParams()), Random(seed)
    while len(world.waves) < 5 and world.breakers.open_ids():
        due = world.breakers.next_due()
        assert due is not None
        world.wait((due - world.now) // SECOND)
        while (breaker := world.breakers.get(world.key)) and breaker.state is BreakerState.HALF_OPEN:
            play_round(world)
            world.result(random.randrange(400), random.random() >= RATES[p0])
    world.check()
    assert not world.lapsed
    for waves in world.waves.values():
        assert sum(world.admitted[wave.epoch] for wave in waves) <= 40 + waves[0].quota * clients


def play_round(world: World) -> None:
    for i, enforcer in enumerate(world.enforcers):
        while enforcer.inbox:
            enforcer.see()
        for _ in range(10):
            world.call(i)


def test_bound_is_reached() -> None:
    """25 clients at a baseline of 90%: 25 calls in the first wave, 25 in the second, all but 10 of them undecided."""
    world = World(25, 25, 0.9, BreakerParams())
    world.wait(31)
    for _ in range(40):
        play_round(world)
        world.result(0, ok=False)
    assert sum(world.admitted.values()) == 50 <= 40 + 25


def test_unanswered_waves_come_on_top() -> None:
    """Results that never come: three waves' worth, then the breaker reopens."""
    world = World(2, 2, 0.005, BreakerParams())
    world.wait(31)
    for _ in range(4):
        play_round(world)
        world.wait(30)
    world.check()
    assert max(sum(world.admitted[w.epoch] for w in waves) for waves in world.waves.values()) == 3 * 5 * 2
