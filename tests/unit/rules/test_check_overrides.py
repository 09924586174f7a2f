"""What is refused about overrides: every rule that they make must be right, alone and where they meet."""

from __future__ import annotations

import pytest

from tests.unit.rules.files import TESTS, breaker, failing, problems, said


def overridden(*overrides: str, base: str | None = None) -> list[tuple[int | None, str, str]]:
    """What is said of a breaker with overrides, which begin on line 9."""
    head = failing(scope="ACTOR_TOOL") if base is None else base
    assert head.count("\n") == 7
    return said(head + "overrides:\n" + "".join(f"  - {each}\n" for each in overrides))


@pytest.mark.parametrize(
    ("override", "path", "says"),
    [
        (
            "{match: {actor: a}, set: {y: {mode: warn}}}",
            "y",
            "there is no breaker or objective 'y'; those there are: x.",
        ),
        (
            "{match: {actor: a}, set: {xx: {mode: warn}}}",
            "xx",
            "there is no breaker or objective 'xx'; did you mean x?",
        ),
        ("{match: {actor: a}, set: {x: {}}}", "x", "it sets nothing; name the fields that differ, or remove it."),
        ("{match: {actor: a}, set: {x: {modus: 1}}}", "x.modus", "there is no such field here; did you mean mode?"),
        ("{match: {actor: a}, set: {x: {mode: on}}}", "x.mode", "expected 'shadow', 'warn' or 'enforce', found 'on'."),
        (
            "{match: {actor: a}, set: {x: {scope: ACTOR}}}",
            "x.scope",
            "no override can change `scope`: that would be another rule; write one of its own.",
        ),
        (
            "{match: {actor: a}, set: {x: {test: {kind: burn}}}}",
            "x.test.kind",
            "no override can change `test.kind`: that would be another rule; write one of its own.",
        ),
        (
            "{match: {actor: a}, set: {x: {test: {max_failures_per_trace: 31}}}}",
            "x.test.max_failures_per_trace",
            "no override can change `test.max_failures_per_trace`: failures of a trace are counted once for all "
            "targets of a rule; set it in the rule itself.",
        ),
        (
            "{match: {actor: a}, set: {x: {test: {wurn: 1}}}}",
            "x.test.wurn",
            "there is no such field here; did you mean warn?",
        ),
        (
            "{match: {actor: a}, set: {x: {test: {trip: 500}}}}",
            "x.test.warn",
            "warn is above trip (1e4 > 500); lower it, or raise trip.",
        ),
        (
            "{match: {actor: a}, set: {x: {action: HALT}}}",
            "x.action",
            "HALT does not fit scope ACTOR_TOOL; expected REQUIRE_APPROVAL or DISABLE_TOOL.",
        ),
        ("{match: {actor: a}, set: {x: {recovery: {}}}}", "x.recovery.by", "it is missing; add it."),
    ],
)
def test_an_override_must_make_a_rule_that_is_right(override: str, path: str, says: str) -> None:
    assert overridden(override) == [(9, f"overrides[0].set.{path}", says)]


def test_no_override_makes_a_limit_of_a_day_one_of_an_event() -> None:
    base = breaker("spend.usd", "ACTOR", TESTS["cap"])
    assert overridden("{match: {actor: a}, set: {x: {test: {per: event}}}}", base=base) == [
        (
            9,
            "overrides[0].set.x.test.per",
            "no override can change `test.per`: that would be another rule; write one of its own.",
        )
    ]
    assert overridden("{match: {actor: a}, set: {x: {test: {per: day, usd: 9}}}}", base=base) == []


def test_two_overrides_that_are_wrong_together() -> None:
    first, second = (
        "{match: {actor: 'a*'}, set: {x: {test: {warn: 9e5}}}}",
        "{match: {actor: '*b'}, set: {x: {test: {trip: 8e5}}}}",
    )
    assert overridden(first, second) == [
        (
            9,
            "overrides[0].set.x.test.warn",
            "warn is above trip (9e5 > 8e5); lower it, or raise trip (where the overrides on lines 9, 10 meet).",
        )
    ]
    assert overridden(first, second.replace("*b", "b*")) == []


def test_one_field_set_twice() -> None:
    wide, narrow = "{match: {actor: 'a*'}, set: {x: {mode: warn}}}", "{match: {actor: ab}, set: {x: {mode: shadow}}}"
    assert overridden(wide, narrow) == []
    assert overridden(narrow, wide) == [
        (
            10,
            "overrides[1].set.x.mode",
            "the override on line 9 sets `mode` too, and some targets fit both; expected the later patterns to be "
            "strictly narrower: narrow them, swap the two, or remove one.",
        )
    ]


def test_too_many_overrides_that_meet() -> None:
    names = ("severity", "runbook", "mode")
    many = [
        f"{{match: {{actor: '*{i}*'}}, set: {{x: {{{names[i % 3]}: {('page', 'r', 'warn')[i % 3]}}}}}}}"
        for i in range(7)
    ]
    assert any("in more than 64 ways" in text for _, _, text in overridden(*many))


def test_an_override_that_changes_nothing_is_a_warning() -> None:
    text = failing(scope="ACTOR") + "overrides:\n  - {match: {tool: t}, set: {x: {mode: warn}}}\n"
    (problem,) = problems(text)
    assert problem.warning
    assert problem.text == "no target of x (ACTOR) fits this override's patterns: it changes nothing."
    apart = (
        failing("match: {actor: 'b*'}", scope="ACTOR") + "overrides:\n  - {match: {actor: a}, set: {x: {mode: warn}}}\n"
    )
    assert [each.warning for each in problems(apart)] == [True]
