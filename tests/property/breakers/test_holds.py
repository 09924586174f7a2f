"""Breakers with several holds, ladders and orders against the plain model, over a long random walk."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from fuseboard_schemas.keys import Target, parse_breaker_id
from fuseboard_schemas.records import Action, BreakerState, Cause, Effect, Override, OverrideKind, Recovery
from fuseboard_schemas.records import Severity as Sev
from fuseboard_schemas.rules import check_override
from fuseboard_streams.core.breaker import Breaker, Evidence, Moment, decode, encode
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.breakers import Breakers, Outcome
from fuseboard_streams.core.commands import to_command
from fuseboard_streams.core.ruleset import RecoveryPlan, Response, Rung
from tests.property.breakers.holds_model import SECOND, Model

if TYPE_CHECKING:
    from fuseboard_schemas.axes import Axes
    from fuseboard_schemas.records import BreakerCommand

START = 1_795_435_200 * SECOND
PARAMS = BreakerParams(
    base_cooldown_us=4 * SECOND, wave_us=3 * SECOND, max_probes=9, empty_waves=3, forget_after_us=60 * SECOND
)
KEYS = ("ACTOR:t/a", "ACTOR_TOOL:t/a/x", "SESSION:t/a/0af7")
TARGETS: dict[str, Target] = {key: parse_breaker_id(key) for key in KEYS}
RELEASES = {"PROBES_PASSED", "CONDITION_CLEARED", "EXPIRED", "OVERRIDE", "RULE_REMOVED", "ATTRIBUTED"}


def plan(by: str, cooldown: int = 4 * SECOND + 1, probes: int = 3, quiet: int = 5 * SECOND + 7) -> RecoveryPlan:
    return RecoveryPlan(Recovery(by), cooldown, 10 * SECOND, probes, quiet)


def rungs(*each: tuple[str, str, float | None]) -> tuple[Rung, ...]:
    return tuple(
        Rung(Action(action), Sev(severity), None if after is None else round(after * SECOND))
        for action, severity, after in each
    )


RESPONSES = {
    "fails": Response("fails", rungs(("DISABLE_TOOL", "TICKET", None)), recovery=plan("PROBE")),
    "slow": Response(
        "slow",
        rungs(("REQUIRE_APPROVAL", "INFO", None), ("READ_ONLY", "TICKET", None), ("HALT", "PAGE", 6)),
        recovery=plan("PROBE", cooldown=SECOND, probes=5),
    ),
    "cost": Response(
        "cost",
        rungs(("FAST_MODEL_ONLY", "TICKET", None), ("READ_ONLY", "PAGE", 3.5), ("HALT", "CRITICAL", 8)),
        recovery=plan("CLEAR"),
    ),
    "loud": Response(
        "loud", rungs(("FAST_MODEL_ONLY", "TICKET", None), ("REQUIRE_APPROVAL", "TICKET", None)),
        recovery=plan("CLEAR", quiet=1),
    ),
    "cap": Response("cap", rungs(("READ_ONLY", "TICKET", None), ("HALT", "TICKET", None)), recovery=plan("WINDOW")),
    "denied": Response("denied", rungs(("HALT", "CRITICAL", None)), recovery=plan("PROBE")),
    "person": Response("person", rungs(("REQUIRE_APPROVAL", "PAGE", None)), recovery=plan("PERSON")),
}  # fmt: skip
HOW: dict[str, dict[str, Any]] = {
    rule: {
        "ladder": [(r.action.value, r.severity.value, r.after_us) for r in each.ladder],
        "by": each.recovery.by.value,
        "base": each.recovery.cooldown_us,
        "top": each.recovery.max_cooldown_us,
        "size": each.recovery.probes,
        "quiet": each.recovery.quiet_us,
    }
    for rule, each in RESPONSES.items()
}
PROBED = ("fails", "slow")


def said(breaker: Breaker) -> tuple[Any, ...]:
    """What the machine publishes, in the model's words, from the command's own fields."""
    command = to_command(breaker, PARAMS)
    if command is None:
        return breaker.breaker_id, "FORGOTTEN"
    listed = tuple((h.rule, h.action.value, h.since, h.recovery.value) for h in command.holds)
    return (
        command.breaker_id, command.state.value, command.cause.value, command.epoch, permitted(command), listed,
        command.person,
    )  # fmt: skip


def permitted(command: BreakerCommand | Axes) -> frozenset[str]:
    may = {"fast model", "slow model", "read", "write", "write with approval"}
    may -= {"slow model"} if command.model.value == "FAST_ONLY" else set()
    may -= {"write"} if command.writes.value != "FREE" else set()
    may -= {"write with approval"} if command.writes.value == "REFUSED" else set()
    may -= {"read", "write", "write with approval"} if command.tool_access.value == "OFF" else set()
    return frozenset(() if command.run.value == "HALT" else may)


@dataclass
class Walk:
    """The machine and the model, side by side."""

    random: Random
    machine: Breakers = field(default_factory=lambda: Breakers(PARAMS))
    model: Model = field(default_factory=lambda: Model(2 * SECOND, 3 * SECOND, 60 * SECOND, 9, 3))
    now: int = START
    epochs: dict[str, list[int]] = field(default_factory=dict)
    last: dict[str, frozenset[str]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    orders: int = 0

    def published(self, changed: tuple[Breaker, ...]) -> None:
        """Compare with what the model says, and check what holds of every command."""
        got = [said(breaker) for breaker in changed]
        assert got == self.model.said
        self.model.said.clear()
        for breaker, words in zip(changed, got, strict=True):
            key = breaker.breaker_id
            if breaker.forgotten:
                assert "FORGOTTEN" in words
                self.last.pop(key)
                continue
            known = self.epochs.setdefault(key, [])
            assert not known or known[-1] < breaker.epoch
            known.append(breaker.epoch)
            before = self.last.get(key)
            if before is not None and words[4] - before:
                assert words[2] in RELEASES, "weakened without a release on record"
            self.last[key] = words[4]
            self.seen.update((words[1], words[2], f"{words[1]} {words[2]}"))
        self.learn()

    def learn(self) -> None:
        for key in self.model.rows:
            breaker = self.machine.get(key)
            assert breaker is not None
            for hold in breaker.holds:
                self.model.took(key, hold.rule, hold.probe_at)

    def agree(self) -> None:
        """State, restrictions, timers; and nothing changed that nobody was told."""
        assert self.machine.ids() == tuple(sorted(self.model.rows))
        assert self.machine.next_due() == self.model.next_time()
        for key, row in self.model.rows.items():
            breaker = self.machine.get(key)
            assert breaker is not None
            assert (breaker.state.value, breaker.epoch) == (self.model.state(row), row["epoch"])
            assert (breaker.state is BreakerState.CLOSED) == (key not in self.machine.open_ids())
            assert [h.rung for h in breaker.holds] == [h["step"] for h in row["holds"].values()]
            assert [h.backoff for h in breaker.holds] == [h["twice"] for h in row["holds"].values()]
            assert breaker.reopenings == (row["again"] if self.model.state(row) != "CLOSED" else 0)
            assert breaker.acknowledged_by == row["knows"]
            may = permitted(breaker.axes)
            assert may == self.model.permits(row) == self.last[key]
            assert breaker.quota == (row["half"]["quota"] if self.model.state(row) == "HALF_OPEN" else 0)
            assert not self.machine.can_be_probe(key, Effect.IRREVERSIBLE)
            assert self.machine.can_be_probe(key, Effect.READ) == ("read" not in may)
            assert self.machine.can_be_probe(key, Effect.WRITE) == ("write" not in may)

    # --- steps

    def fire(self) -> None:
        key, rule = self.random.choice(KEYS), self.random.choice(tuple(RESPONSES))
        p0 = self.random.choice([0.005, 0.1, 0.5, None])
        until = None
        if rule == "cap" and (not key.startswith("SESSION") or self.random.random() < 0.5):
            until = self.now + self.random.choice([-SECOND, 0, SECOND, 9 * SECOND, 40 * SECOND])
        before = self.machine.get(key)
        evidence = None if p0 is None else Evidence(6.0, p0, 9, 8, START)
        # What is decided now may have been made long before; if nobody says when, it was made now.
        made = self.random.choice([*[None] * 9, self.now, self.now - 4 * SECOND])
        moment = Moment(self.now, "e", 1, made)
        fired = self.machine.fire(TARGETS[key], moment, RESPONSES[rule], evidence, until_us=until)
        assert self.model.fire(key, rule, HOW[rule], self.now, p0, until, made) == fired.outcome.name
        assert bool(fired.changed) == (fired.outcome is not Outcome.NOTHING)
        self.seen[fired.outcome.name] += 1
        self.published(fired.changed)
        self.no_timer_too_soon(key, before)

    def no_timer_too_soon(self, key: str, before: Breaker | None) -> None:
        """What pieces rely on: whatever a call starts is not due before the promised time."""
        after = self.machine.get(key)
        soonest = self.now + PARAMS.min_cooldown_us
        if before is not None and before.due is not None:
            soonest = min(soonest, before.due)
        assert after is None or after.due is None or after.due >= soonest

    def probe(self) -> None:
        """One more result, mostly of the wave that is open."""
        for key in KEYS:
            breaker = self.machine.get(key)
            known = self.epochs.get(key)
            if breaker is None or not known or self.random.random() < 0.5:
                continue
            good = self.random.random() < 0.85
            for _ in range(self.random.choice([1, 2, 6])):
                epoch = known[-1 - min(self.random.choice([0, 0, 0, 0, 1, 4]), len(known) - 1)]
                before = self.machine.get(key)
                changed = self.machine.probe(key, epoch, good, Moment(self.now, "e", 2))
                self.model.probe(key, epoch, good, self.now)
                self.published(changed)
                self.no_timer_too_soon(key, before)

    def condition(self) -> None:
        key, rule = self.random.choice(KEYS), self.random.choice(("cost", "cost", "loud", "slow"))
        if self.random.random() < 0.6:
            self.machine.burning(TARGETS[key], rule, Moment(self.now))
            self.model.burning(key, rule, self.now)
        else:
            self.machine.cleared(TARGETS[key], rule, Moment(self.now))
            self.model.cleared(key, rule, self.now)

    def acknowledge(self) -> None:
        key = self.random.choice(KEYS)
        known = self.epochs.get(key, [1])
        epoch = self.random.choice([known[-1], known[-1], known[0], known[-1] + 1])
        self.machine.acknowledge(key, epoch, Moment(self.now))
        self.model.acknowledge(key, epoch, self.now)

    def order(self) -> None:
        key, random = self.random.choice(KEYS), self.random
        kind = random.choice(("TRIP", "HOLD", "BYPASS", "RESET", "RESET", "RESET", "ACKNOWLEDGE"))
        fitting = ["DISABLE_TOOL", "REQUIRE_APPROVAL"] if "TOOL" in key else ["FAST_MODEL_ONLY", "READ_ONLY", "HALT"]
        action = random.choice(fitting) if kind == "TRIP" or (kind == "HOLD" and random.random() < 0.3) else "NONE"
        rule = random.choice(tuple(RESPONSES)) if kind == "RESET" and random.random() < 0.6 else None
        end = self.now + random.randrange(1, 25 * SECOND) if kind in ("TRIP", "HOLD", "BYPASS") else None
        end = None if kind != "BYPASS" and random.random() < 0.2 else end
        epoch = random.choice([None, None, None, self.epochs.get(key, [0])[-1], 5])
        self.orders += 1
        target, person = TARGETS[key], f"person {self.orders}"
        order = Override(
            override_id=f"o{self.orders}", ts=self.now, tenant=target.tenant, scope=target.scope, actor=target.actor,
            tool=target.tool, trace_id=target.trace_id, kind=OverrideKind(kind), action=Action(action), rule=rule,
            epoch=epoch, person=person, reason="because", expires_at=end,
        )  # fmt: skip
        assert check_override(order, self.now) is None
        answer = self.machine.order(target, order, Moment(self.now, order.override_id, self.orders))
        accepted = self.model.order(key, kind, action, person, end, rule, epoch, self.now)
        assert (answer.refused is None) == accepted
        self.seen[f"{kind} {'accepted' if accepted else 'refused'}"] += 1
        self.published(answer.changed)

    def remove(self) -> None:
        """A rule is taken out of the file, or one hold is blamed on another breaker."""
        rule = self.random.choice(tuple(RESPONSES))
        if self.random.random() < 0.5:
            changed = self.machine.release_where(lambda _, each, __: each == rule, Moment(self.now))
            self.model.remove_rule(rule, self.now)
        else:
            key = self.random.choice(KEYS)
            changed = self.machine.release(TARGETS[key], rule, Moment(self.now), Cause.ATTRIBUTED, "the tool")
            if rule in self.model.rows.get(key, {"holds": {}})["holds"]:
                self.model.drop(key, rule, self.now, "ATTRIBUTED")
        self.published(changed)

    def wait(self) -> None:
        longest = self.random.choice([SECOND // 3, SECOND, 3 * SECOND, 12 * SECOND, 12 * SECOND, 40 * SECOND])
        self.until(self.now + self.random.randrange(longest))

    def leap(self) -> None:
        self.until(self.now + 3_700 * SECOND)

    def until(self, end: int) -> None:
        clients = self.random.randrange(5)
        while (due := self.model.next_time()) is not None and due <= end:
            while self.model.one_at(due, clients):
                pass
            assert self.machine.next_due() == due
            self.published(self.machine.tick(due, lambda tenant, actor: clients))
        self.now = end

    def restore(self) -> None:
        """A successor that reads the state log goes on like its predecessor."""
        successor = Breakers(PARAMS)
        for key in reversed(self.machine.ids()):
            breaker = self.machine.get(key)
            assert breaker is not None
            assert decode(encode(breaker)) == breaker
            successor.put(decode(encode(breaker)))
        self.machine = successor

    def abort(self) -> None:
        """A transaction that is taken back has never been."""
        saved = deepcopy((self.model, self.now, self.epochs, self.last, self.orders))
        rows = {key: self.machine.get(key) for key in self.machine.ids()}
        self.machine.begin()
        for _ in range(5):
            self.random.choice((self.fire, self.probe, self.order, self.wait, self.condition))()
        self.machine.rollback()
        self.model, self.now, self.epochs, self.last, self.orders = saved
        assert {key: self.machine.get(key) for key in self.machine.ids()} == rows


STEPS = (
    [Walk.fire] * 22 + [Walk.probe] * 20 + [Walk.wait] * 24 + [Walk.condition] * 12 + [Walk.acknowledge] * 8
    + [Walk.order] * 10 + [Walk.remove] * 3
)  # fmt: skip


def walk(seed: int, steps: int) -> Walk:
    there = Walk(Random(seed))
    rare = ((Walk.restore, 0.004), (Walk.abort, 0.004), (Walk.leap, 0.002))
    for _ in range(steps):
        step = there.random.choice(STEPS)
        for unusual, chance in rare:
            if there.random.random() < chance:
                step = unusual
        step(there)
        there.agree()
    return there


@pytest.mark.parametrize("seed", range(20))
def test_the_machine_does_what_the_model_does(seed: int) -> None:
    walk(seed, 5_000)


def test_the_walks_go_everywhere() -> None:
    """Otherwise they would prove little."""
    seen: Counter[str] = Counter()
    for seed in range(100, 106):
        seen += walk(seed, 3_000).seen
    wanted = {
        "TRIPPED", "CLIMBED", "NOTHING", *(state.value for state in BreakerState), *RELEASES,
        "COOLDOWN_OVER", "NEXT_WAVE", "PROBES_FAILED", "PROBES_UNDECIDED", "NO_PROBES", "OPEN PROBES_PASSED",
        "CLOSED PROBES_PASSED", "OPEN CONDITION_CLEARED", "CLOSED CONDITION_CLEARED", "FORCED_OPEN TRIP",
        "FORCED_CLOSED TRIP", "FORCED_OPEN CONDITION_CLEARED", "OPEN EXPIRED", "CLOSED EXPIRED", "CLOSED RULE_REMOVED",
        *(f"{kind} accepted" for kind in ("TRIP", "HOLD", "BYPASS", "RESET", "ACKNOWLEDGE")),
        "HOLD refused", "RESET refused", "TRIP refused", "ACKNOWLEDGE refused",
    }  # fmt: skip
    assert sorted(wanted - set(seen)) == []
