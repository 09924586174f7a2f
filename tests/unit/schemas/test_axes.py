"""The four axes: their join, their order, and the one definition that workers and enforcers share."""

from __future__ import annotations

import itertools

import pytest

from fuseboard_schemas.axes import ACTIONS_OF, Axes, axes_of, hardest, join, plain_action
from fuseboard_schemas.records import Action, Effect, ModelAccess, RunAccess, Scope, ToolAccess, WriteAccess

SETS = [set(some) for n in range(7) for some in itertools.combinations(Action, n)]


@pytest.mark.parametrize(
    ("actions", "axes"),
    [
        ((), Axes()),
        ((Action.NONE,), Axes()),
        ((Action.FAST_MODEL_ONLY, Action.READ_ONLY), Axes(model=ModelAccess.FAST_ONLY, writes=WriteAccess.REFUSED)),
        ((Action.READ_ONLY, Action.REQUIRE_APPROVAL), Axes(writes=WriteAccess.REFUSED)),
        ((Action.REQUIRE_APPROVAL, Action.HALT), Axes(writes=WriteAccess.APPROVAL, run=RunAccess.HALT)),
        ((Action.DISABLE_TOOL,), Axes(tool_access=ToolAccess.OFF)),
    ],
)
def test_join_takes_the_hardest_on_each_axis(actions: tuple[Action, ...], axes: Axes) -> None:
    assert axes_of(actions) == axes


def permitted(axes: Axes) -> set[str]:
    """What an agent may do, spelled out."""
    if axes.run is RunAccess.HALT:
        return set()
    may = {"fast model"} | ({"any model"} if axes.model is ModelAccess.ANY else set())
    if axes.tool_access is ToolAccess.ON:
        may |= {"read"}
        may |= {"approved write"} if axes.writes is not WriteAccess.REFUSED else set()
        may |= {"write"} if axes.writes is WriteAccess.FREE else set()
    return may


def test_containing_is_permitting_no_more() -> None:
    for a, b in itertools.product(SETS, SETS):
        assert axes_of(a).contains(axes_of(b)) == (permitted(axes_of(a)) <= permitted(axes_of(b))), (a, b)


def test_a_join_contains_its_parts_and_does_not_depend_on_order() -> None:
    for a, b in itertools.product(SETS, SETS):
        joined = axes_of([*a, *b])
        assert joined == join((axes_of(b), axes_of(a)))
        assert joined.contains(axes_of(a))
        assert joined.contains(axes_of(b))


def test_calls_are_held_back_as_the_axes_say() -> None:
    for axes in map(axes_of, SETS):
        may = permitted(axes)
        assert axes.refuses(Effect.READ) == ("read" not in may)
        for effect in (Effect.WRITE, Effect.IRREVERSIBLE):
            assert axes.refuses(effect) == ("write" not in may)
            assert axes.wants_approval(effect) == ("approved write" in may and "write" not in may)
        assert not axes.wants_approval(Effect.READ)


def test_one_action_stands_for_the_join() -> None:
    for actions in SETS:
        alone = [action for action in Action if axes_of([action]) == axes_of(actions)]
        assert plain_action(axes_of(actions)) == (alone[0] if alone else hardest(actions))
    assert plain_action(axes_of([Action.FAST_MODEL_ONLY, Action.READ_ONLY])) is Action.READ_ONLY
    assert hardest([]) is Action.NONE


def test_every_scope_with_breakers_has_actions() -> None:
    assert set(ACTIONS_OF) == set(Scope) - {Scope.OTHER}
    assert not any(Action.NONE in actions for actions in ACTIONS_OF.values())
