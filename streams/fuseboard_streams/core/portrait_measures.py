"""What an actor's shard counts of it beside failures: money, denials, sessions, silence, losses. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fuseboard_detectors import burn
from fuseboard_detectors.recent import RecentHits, distinct
from fuseboard_schemas.records import Scope
from fuseboard_streams.core import losses, sessions, silence, spending, violations
from fuseboard_streams.core.hard_caps import DAY_US
from fuseboard_streams.core.layout import EPOCH_S
from fuseboard_streams.core.portrayed import (
    BurnPortrait,
    CapPortrait,
    LossPortrait,
    SessionsPortrait,
    SilencePortrait,
    ViolationsPortrait,
    WindowPortrait,
)
from fuseboard_streams.core.rulebook import NONE
from fuseboard_streams.core.ruleset import BurnTest, CapTest, DistinctTest, LostTest, RunsTest, SilenceTest
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.settings import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeVar

    from fuseboard_streams.core.parts import Parts
    from fuseboard_streams.core.rulebook import RuleView
    from fuseboard_streams.core.ruleset import Test
    from fuseboard_streams.core.tables import Table

    T = TypeVar("T", bound=Test)


def measures_of(parts: Parts, actor: int) -> dict[str, Any]:
    """The fields of an `ActorPortrait` that are about these, by name.

    Args:
        parts: Of the actor's shard.
        actor: The actor's row.
    """
    return {
        "caps": tuple(_caps(parts, actor)),
        "budgets": tuple(_budgets(parts, actor)),
        "violations": tuple(_violations(parts, actor)),
        "sessions": tuple(_sessions(parts, actor)),
        "silences": tuple(_silences(parts, actor)),
        "losses": tuple(_losses(parts, actor)),
    }


def _tests(parts: Parts, actor: int, views: Iterable[RuleView], kind: type[T]) -> Iterator[tuple[str, str, T, int]]:
    """Of rules with a kind of test those that are for an actor: name, mode, the test, and what names its state."""
    tenant, name = str(parts.state.actors["tenant"][actor]), str(parts.state.actors["actor"][actor])
    for view in views:
        number = view.number(tenant, name)
        if number != NONE:
            yield (
                view.rule.rule,
                str(view.variants[number].response.mode),
                view.test(number, kind),
                int(view.bases[number]),
            )


def _row(table: Table, actor: int, basis: int) -> int:
    """The row of an actor and a rule's state, negative if there is none."""
    return int(table.find(np.array([actor], dtype=np.uint64), np.array([basis], dtype=np.uint64))[0])


# --- money


def _caps(parts: Parts, actor: int) -> Iterator[CapPortrait]:
    table, today = parts.state.capped, parts.stream_time // DAY_US
    for rule, mode, test, basis in _tests(parts, actor, parts.book.asking(CapTest, Scope.ACTOR), CapTest):
        row = _row(table, actor, basis)
        spent = int(table["spent"][row]) if row >= 0 and int(table["day"][row]) == today else 0
        yield CapPortrait(rule, mode, test.daily, test.micro_usd, spent if test.daily else None)


def _budgets(parts: Parts, actor: int) -> Iterator[BurnPortrait]:
    state = _spent(parts, actor)
    for rule, mode, test, basis in _tests(parts, actor, parts.book.asking(BurnTest, Scope.ACTOR), BurnTest):
        since = parts.engine.spending.since(basis)
        windows = tuple(_window(state, test, each, since) for each in test.pairs)
        yield BurnPortrait(rule, mode, test.budget_micro_usd, windows)


def _spent(parts: Parts, actor: int) -> burn.Spending:
    """The actor's rings as they stand now, with what has not been put into them yet."""
    spends, slot = parts.state.spends, int(parts.state.actors[spending.SLOT][actor])
    if slot < 0:
        return burn.Spending.fresh(1)
    row = np.array([slot])
    state = burn.Spending(spends["cells"][row], spends["newest"][row])
    begun = spends["cell"][row].astype(np.int64) * spending.CELL_US
    burn.roll(state, np.maximum(begun, parts.stream_time))
    burn.spend(state, np.array([0]), begun, spends["sum"][row])
    return state


def _window(state: burn.Spending, test: BurnTest, pair: burn.BurnPair, since_us: int) -> WindowPortrait:
    top, bottom = pair.share
    return WindowPortrait(
        pair.long_us,
        int(burn.within(state, pair.long_us, since_us)[0]),
        -(-test.budget_micro_usd * top // bottom),
        pair.short_us,
        int(burn.within(state, pair.short_us, since_us)[0]),
        -(-test.budget_micro_usd * top * pair.short_us // (bottom * pair.long_us)),
    )


# --- denials and sessions


def _violations(parts: Parts, actor: int) -> Iterator[ViolationsPortrait]:
    table, now = parts.state.violators, np.array([parts.stream_time])
    for rule, mode, test, basis in _tests(parts, actor, parts.book.asking(DistinctTest, Scope.ACTOR), DistinctTest):
        row = np.array([_row(table, actor, basis)])
        traces = 0
        if row[0] >= 0 and not violations.faded(table, row, parts.stream_time)[0]:
            hits = RecentHits(table["trace"][row], table["number"][row], table["at"][row])
            made = table["actions"][row]
            # A decision counts as part of the action that follows it.
            last = np.maximum(made, hits.number.max(axis=1))
            traces = int(distinct(hits, last, now, actions=test.of_last, max_age_us=test.within_us)[0])
        severities = tuple(sorted(str(each) for each in test.severities))
        yield ViolationsPortrait(rule, mode, traces, test.traces, test.of_last, test.within_us, severities)


def _sessions(parts: Parts, actor: int) -> Iterator[SessionsPortrait]:
    table = parts.state.sessions
    top = table.high_water
    idle_s = min(parts.settings.session_idle_us, parts.settings.forget_after_us // 2) // SECOND
    since = parts.stream_time // SECOND - EPOCH_S - idle_s
    for rule, mode, test, basis in _tests(parts, actor, parts.book.asking(RunsTest, Scope.SESSION), RunsTest):
        owner = sessions.owner_of(np.array([actor]), np.array([basis], dtype=np.uint64))[0]
        rows = places((table["owner"][:top] == owner) & table.live[:top] & (table["last_seen"][:top] >= since))
        failures, identical = table["failures"][rows].astype(np.int64), table["identical"][rows].astype(np.int64)
        near = (2 * failures >= test.failures) | (2 * identical >= test.identical)
        yield SessionsPortrait(
            rule, mode, len(rows), int(np.count_nonzero(near)), int(failures.max(initial=0)), test.failures,
            int(identical.max(initial=0)), test.identical,
        )  # fmt: skip


# --- what is not heard


def _silences(parts: Parts, actor: int) -> Iterator[SilencePortrait]:
    table, slot = parts.state.requests, int(parts.state.actors[silence.SLOT][actor])
    requests = int(table["requests"][slot]) if slot >= 0 else 0
    since = int(table["since"][slot]) if requests else None
    for rule, mode, test, _ in _tests(parts, actor, parts.book.asking(SilenceTest, Scope.ACTOR), SilenceTest):
        yield SilencePortrait(rule, mode, requests, test.requests, since, test.lasting_us)


def _losses(parts: Parts, actor: int) -> Iterator[LossPortrait]:
    for rule, mode, test, _ in _tests(parts, actor, parts.book.asking(LostTest, Scope.ACTOR), LostTest):
        missing, expected = losses.missing_of(parts.state.losses, actor, test, parts.stream_time)
        yield LossPortrait(
            rule, mode, missing, expected, test.share[0] / test.share[1], test.minimum, test.within_us
        )  # fmt: skip
