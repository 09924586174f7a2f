"""Objectives measured one event at a time, with lists: what a shard must say whatever the cuts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fuseboard_detectors.objectives import CELLS, WINDOW_CELLS, tails
from fuseboard_schemas.records import Decision, DeniedBy, Mode, Outcome, Scope, StepKind
from fuseboard_streams.core.events import DECISIONS, REQUESTS, TRACES
from fuseboard_streams.core.inputs import TOOL_CALLS
from fuseboard_streams.core.ruleset import COST, SUCCESS, TRACED, VIOLATING, ObjectiveTest, Rule, RuleSet
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.variants import variant_of
from tests.support.calls import T0

MINUTE = 60 * SECOND
Said = tuple[str, str, str | None, str, int, int, int]
"""Rule, actor, tool, state, stream time, how many there were and how many were bad."""
Key = tuple[str, str, str | None]


def minute(time: int) -> int:
    """The first whole minute not before a time."""
    return -(-time // MINUTE) * MINUTE


@dataclass
class Count:
    """One target of one objective."""

    test: ObjectiveTest
    events: list[tuple[int, int, tuple[int, int]]] = field(default_factory=list)
    """Time, how many there were, how many were bad by each limit."""
    newest: int = 0
    said: str = "unknown"
    said_at: int = 0
    due: int | None = None

    @property
    def width(self) -> int:
        """Of a cell."""
        return self.test.window_us // WINDOW_CELLS

    def sums(self, now: int, first: int, last: int) -> tuple[int, int, int]:
        """Total, bad and worse of the cells that are so many cells old."""
        inside = [each for each in self.events if first <= now // self.width - each[0] // self.width < last]
        return sum(n for _, n, _ in inside), *(sum(bad[i] for _, _, bad in inside) for i in (0, 1))

    def remembered(self, now: int) -> bool:
        """Whether anything of it can still matter."""
        return bool(self.events) and now // self.width - self.newest // self.width <= CELLS


@dataclass
class Session:
    heard: int = 0
    requested: int = 0
    counted: int = 0
    shown: bool = False
    until: int = 0


@dataclass
class Task:
    cost: int = 0
    told: bool = False
    ended: bool = False
    until: int = 0


class Model:
    """Takes records one by one, and keeps what was said."""

    def __init__(self, rules: RuleSet, settings: CoreSettings) -> None:
        self.rules, self.settings = rules, settings
        self.said: list[Said] = []
        self.stream = 0
        self._newest: dict[str, int] = {}
        self._tick = 0
        self._counts: dict[Key, Count] = {}
        self._sessions: dict[tuple[str, str, str], Session] = {}
        self._denied: dict[tuple[str, str], int] = {}
        self._tasks: dict[tuple[str, str], Task] = {}

    def take(self, topic: str, record: Any) -> None:
        """Take the next record, a `Call` or a record of another topic."""
        ts = T0 + round(record.at * SECOND) if topic == TOOL_CALLS else record.ts
        stream = max(self.stream, ts)
        self.run(stream)
        self.stream = stream
        newest = self._newest[topic] = max(self._newest.get(topic, 0), ts)
        on_time = newest - ts <= self.settings.late_after_us
        if topic == REQUESTS:
            if on_time and record.accepted:
                self._request(record.actor, record.session_id, ts)
            return
        self._hear(record.actor, record.session if topic == TOOL_CALLS else record.session_id, ts)
        if not on_time:
            return
        if topic == TOOL_CALLS:
            self._call(record)
        elif topic == TRACES:
            self._part(record.actor, record.trace_id, record.cost_usd_micros, record.kind is StepKind.SESSION_END)
        elif topic == DECISIONS and record.decision is Decision.DENY and record.mode is Mode.ENFORCE:
            for rule in self._of(VIOLATING) if self._first_denial(record.actor, record.span_id) else ():
                self._add((rule.rule, record.actor, None), self.stream, 0, (1, 0))

    def _of(self, metric: str) -> list[Rule]:
        return [each for each in self.rules.objectives if each.metric == metric]

    def _test(self, rule: Rule, actor: str, tool: str | None = None) -> ObjectiveTest:
        variant = variant_of(rule, "default", actor, tool)
        assert variant is not None
        assert isinstance(variant.test, ObjectiveTest)
        return variant.test

    # --- events

    def _add(self, key: Key, at: int, total: int, bad: tuple[int, int], due: int | None = None) -> None:
        rule = next(each for each in self.rules.objectives if each.rule == key[0])
        count = self._counts.setdefault(key, Count(self._test(rule, key[1], key[2])))
        count.events.append((at, total, bad))
        count.newest = max(count.newest, at)
        due = minute(self.stream + self.settings.piece_us) if due is None else due
        count.due = due if count.due is None else min(count.due, due)

    def _call(self, call: Any) -> None:
        self._part(call.actor, call.trace, call.cost, ended=False)
        if call.probe or call.denied_by is DeniedBy.BREAKER:
            return
        if call.outcome in (Outcome.OK, Outcome.ERROR, Outcome.TIMEOUT):
            for rule in self._of(SUCCESS):
                tool = call.tool if rule.scope is Scope.ACTOR_TOOL else None
                self._add((rule.rule, call.actor, tool), self.stream, 1, (call.outcome is not Outcome.OK, 0))
        denied = call.denied_by is DeniedBy.POLICY and self._first_denial(call.actor, call.span)
        for rule in self._of(VIOLATING):
            self._add((rule.rule, call.actor, None), self.stream, 1, (denied, 0))

    def _first_denial(self, actor: str, span: str | None) -> bool:
        if span is None:
            return True
        first = self._denied.get((actor, span), 0) <= self.stream
        if first:
            self._denied[actor, span] = self.stream + 10 * MINUTE + self.settings.late_after_us
        return first

    def _session(self, rule: Rule, actor: str, name: str) -> Session:
        found = self._sessions.setdefault((rule.rule, actor, name), Session())
        if found.until <= self.stream:
            found = self._sessions[rule.rule, actor, name] = Session()
        grace = self._test(rule, actor).grace_us
        found.until = self.stream + 2 * grace + self.settings.late_after_us
        return found

    def _request(self, actor: str, name: str, ts: int) -> None:
        for rule in self._of(TRACED):
            session, grace = self._session(rule, actor, name), self._test(rule, actor).grace_us
            if session.requested and abs(ts - session.requested) <= grace:
                continue
            session.requested, session.counted = ts, self.stream
            session.shown = session.heard > 0 and abs(session.heard - ts) <= grace
            self._add((rule.rule, actor, None), self.stream, 1, (not session.shown, 0))

    def _hear(self, actor: str, name: str | None, ts: int) -> None:
        for rule in self._of(TRACED):
            key = (rule.rule, actor, None)
            if name is None or key not in self._counts or not self._counts[key].remembered(self.stream):
                continue
            session = self._session(rule, actor, name)
            session.heard = max(session.heard, ts)
            near = abs(ts - session.requested) <= self._test(rule, actor).grace_us
            if session.requested and not session.shown and near:
                session.shown = True
                newest = self._counts[key].newest
                self._add(key, session.counted, 0, (-1, 0))
                self._counts[key].newest = newest

    def _part(self, actor: str, trace: str | None, cost: int | None, ended: bool) -> None:
        if trace is None:
            return
        task = self._tasks.setdefault((actor, trace), Task())
        task.cost += cost or 0
        task.told |= cost is not None
        task.ended |= ended
        task.until = self.stream + (MINUTE if task.ended else 10 * MINUTE)

    # --- ticks

    def run(self, until: int) -> None:
        """Run the whole minutes up to a time."""
        self._tick = max(self._tick, T0 - 60 * MINUTE)
        while self._tick + MINUTE <= until:
            self._tick += MINUTE
            for (actor, trace), task in sorted(self._tasks.items()):
                if task.until <= self._tick:
                    del self._tasks[actor, trace]
                    self._over(actor, task)
            for key, count in self._counts.items():
                if count.due is not None and count.due <= self._tick:
                    self._judge(key, count, self._tick)

    def _over(self, actor: str, task: Task) -> None:
        for rule in self._of(COST) if task.told else ():
            limits = self._test(rule, actor).least
            bad = [task.cost >= least for least in limits]
            self._add((rule.rule, actor, None), self._tick, 1, (bad[0], bad[-1] * (len(bad) > 1)), due=self._tick)

    def _judge(self, key: Key, count: Count, now: int) -> None:
        test = count.test
        graced = -(-test.grace_us // count.width) + 1 if test.grace_us else 0
        total, *bad = count.sums(now, graced, graced + WINDOW_CELLS)
        bad = [min(max(each, 0), total) for each in bad[: len(test.shares)]]
        each = [self._state(one, total, test, share) for one, share in zip(bad, test.shares, strict=True)]
        found = "violated" if "violated" in each else "met" if set(each) == {"met"} else "unknown"
        state = found if found != "unknown" else count.said if total >= test.minimum else "unknown"
        if state != count.said or (state != "unknown" and now - count.said_at >= 12 * 60 * MINUTE):
            count.said, count.said_at = state, now
            unsure = next((i for i, one in enumerate(each) if one != "met"), 0)
            of = each.index(state) if state == "violated" and state in each else unsure
            self.said.append((*key, state, now, total, bad[of]))
        held = count.sums(now, 0, CELLS)[0]
        rule = next(one for one in self.rules.objectives if one.rule == key[0])
        least = min(v.test.minimum for v in (rule.base, *(v for _, v in rule.changed)))  # type: ignore[union-attr]
        lasting = count.said != "unknown" or held >= least
        count.due = minute((now // count.width + 1) * count.width) if lasting else None

    @staticmethod
    def _state(bad: int, total: int, test: ObjectiveTest, share: tuple[int, int]) -> str:
        if total < test.minimum:
            return "unknown"
        few, many = tails(np.array([bad]), np.array([total]), share[0] / share[1], test.error)
        return "violated" if many[0] else "met" if few[0] else "unknown"
