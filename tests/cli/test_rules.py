"""``fuseboard rules check|explain|diff|schema``: what they print, and with which exit codes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fuseboard_streams.rules.compile import PACKAGED, version_of
from fuseboard_streams.rules.document import read
from tests.cli.support import run
from tests.cli.test_startup import HEAVY, modules_after
from tests.unit.rules.example import EXAMPLE, changed


def written(folder: Path, text: str, name: str = "f.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


# --- check


def test_the_packaged_file_is_right() -> None:
    result = run("rules", "check")
    assert result.exit_code == 0
    assert result.stdout == f"fuseboard.yaml: 15 breakers, 5 objectives, version {version_of(PACKAGED.read_bytes())}\n"


def test_check_prints_every_problem_with_its_line(tmp_path: Path) -> None:
    file = written(tmp_path, changed("action: DISABLE_TOOL", "action: HALT").replace("by: clear", "by: probe"))
    result = run("rules", "check", file)
    assert result.exit_code == 1
    fits = "expected REQUIRE_APPROVAL or DISABLE_TOOL."
    assert result.stdout.splitlines()[:3] == [
        f"{file}:16: breakers.tool-failing.action: HALT does not fit scope ACTOR_TOOL; {fits}",
        f"{file}:16: breakers.tool-failing.action: HALT does not fit scope TOOL; {fits}",
        f"{file}:25: breakers.cost-runaway.recovery.by: probe cannot release what burn on spend.usd holds per ACTOR; "
        "expected clear or person.",
    ]


def test_check_as_json(tmp_path: Path) -> None:
    file = written(tmp_path, EXAMPLE)
    found = json.loads(run("rules", "check", file, "--json").stdout)
    assert found["ok"] is True
    assert found["version"] == version_of(EXAMPLE.encode())
    (warning,) = found["problems"]
    assert (warning["line"], warning["path"], warning["warning"]) == (28, "overrides[0].set.tool-success", True)
    wrong = run("rules", "check", written(tmp_path, "version: 2"), "--json")
    assert wrong.exit_code == 1
    assert json.loads(wrong.stdout) == {
        "ok": False,
        "version": None,
        "problems": [{"source": file, "line": 1, "path": "version", "text": "expected 1, found 2.", "warning": False}],
    }


def test_a_warning_is_no_failure(tmp_path: Path) -> None:
    result = run("rules", "check", written(tmp_path, EXAMPLE))
    assert result.exit_code == 0
    assert ":28: overrides[0].set.tool-success: warning: no target of tool-success" in result.stdout


def test_what_is_in_a_file_cannot_drive_the_terminal(tmp_path: Path) -> None:
    result = run("rules", "check", written(tmp_path, 'version: "\\e[31m"'))
    assert "\x1b" not in result.output
    assert "\\x1b[31m" in result.output


def test_a_file_that_is_not_there() -> None:
    result = run("rules", "check", "nowhere.yaml")
    assert result.exit_code == 2
    assert "nowhere.yaml" in result.stderr


# --- explain

_OVERRIDDEN = changed(
    "overrides:\n",
    "overrides:\n"
    '  - {match: {actor: "support_*"}, set: {tool-failing: {mode: warn, test: {trip: 1e8}}}}\n'
    "  - {match: {actor: support_eu}, set: {tool-failing: {mode: shadow, recovery: {by: person}}}}\n",
)


def explained(file: str, *target: str) -> dict[tuple[str, str], dict[str, Any]]:
    found = json.loads(run("rules", "explain", *target, file, "--json").stdout)
    return {(each["rule"], each["scope"]): each for each in found["rules"]}


def values(rule: dict[str, Any]) -> dict[str, tuple[str, str, int | None]]:
    return {each["path"]: (each["value"], each["origin"], each["line"]) for each in rule["values"]}


def test_explain_says_which_line_every_value_comes_from(tmp_path: Path) -> None:
    found = explained(written(tmp_path, _OVERRIDDEN), "support_eu", "refund")
    assert list(found)[:3] == [("tool-failing", "ACTOR_TOOL"), ("tool-failing", "TOOL"), ("cost-runaway", "ACTOR")]
    rule = found["tool-failing", "ACTOR_TOOL"]
    assert (rule["section"], rule["line"], rule["overrides"]) == ("breaker", 11, [28, 29])
    shown = values(rule)
    assert shown["test.trip"] == ("1e8", "override", 28)
    assert shown["mode"] == ("shadow", "override", 29)
    assert shown["recovery.by"] == ("person", "override", 29)
    assert "recovery.cooldown" not in shown
    assert shown["test.warn"] == ("1e4", "rule", 14)
    assert shown["severity"] == ("ticket", "defaults", 2)
    assert shown["runbook"] == ("docs/runbooks/tool-failing.md", "defaults", 2)
    assert values(found["trace-coverage", "ACTOR"])["confidence"] == ("95%", "built in", None)


def test_explain_follows_the_target(tmp_path: Path) -> None:
    file = written(tmp_path, _OVERRIDDEN)
    assert values(explained(file, "support_us", "refund")["tool-failing", "ACTOR_TOOL"])["mode"] == (
        "warn",
        "override",
        28,
    )
    assert values(explained(file, "other", "refund")["tool-failing", "ACTOR_TOOL"])["mode"] == ("enforce", "rule", 17)
    # A tool for all has no actor that an override could name.
    assert values(explained(file, "support_us", "refund")["tool-failing", "TOOL"])["mode"] == ("enforce", "rule", 17)


def test_explain_leaves_out_what_is_not_for_the_target(tmp_path: Path) -> None:
    file = written(tmp_path, changed("scope: ACTOR\n", "scope: ACTOR\n    match: {tenant: acme, actor: 'a*'}\n"))
    assert ("cost-runaway", "ACTOR") not in explained(file, "a1", "t")
    assert ("cost-runaway", "ACTOR") in explained(file, "a1", "t", "--tenant", "acme")
    assert ("cost-runaway", "ACTOR") not in explained(file, "b1", "t", "--tenant", "acme")


def test_explain_says_how_soon_it_trips_and_what_false_trips_do(tmp_path: Path) -> None:
    file = written(tmp_path, EXAMPLE)
    notes = explained(file, "a", "t")["tool-failing", "ACTOR_TOOL"]["notes"]
    assert notes == [
        "without history 12 in a row trip it (normal is then up to 26.8%)",
        "trip is named, so it wins over false_trips: 1 a day",
    ]
    unnamed = written(tmp_path, changed(", trip: 1e6", ""))
    assert explained(unnamed, "a", "t")["tool-failing", "ACTOR_TOOL"]["notes"][1] == (
        "false_trips: 1 a day changes nothing yet: without calibration data trip stays 1e6"
    )


def test_how_an_explanation_looks() -> None:
    lines = run("rules", "explain", "support", "refund").stdout.splitlines()
    assert lines[:2] == ["support · refund, by fuseboard.yaml:", ""]
    assert re.fullmatch(r"tool-failing  ACTOR_TOOL  calls\.failed  e-detector  line \d+", lines[2])
    assert re.fullmatch(r"  test\.baseline\.floor +0\.5% +line \d+", lines[4])
    assert "  without history 12 in a row trip it (normal is then up to 26.8%)." in lines


def test_no_rule_at_all(tmp_path: Path) -> None:
    file = written(tmp_path, "version: 1\n")
    assert run("rules", "explain", "a", "t", file).stdout == f"No rule of {file} is for a · t.\n"


@pytest.mark.parametrize("arguments", [("explain", "a", "t"), ("diff",)])
def test_a_file_that_is_wrong_ends_with_2_and_every_problem_on_a_line(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    file = written(tmp_path, "version: 2\nx: 1\n")
    result = run("rules", *arguments, file)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"{file}:2: x: there is no such field here;")


# --- diff


def compared(folder: Path, old: str, new: str) -> list[tuple[Any, ...]]:
    result = run("rules", "diff", written(folder, old, "old.yaml"), written(folder, new, "new.yaml"), "--json")
    return [
        (
            each["kind"],
            each["rule"],
            each["scope"],
            each["whom"],
            [tuple(f.values()) for f in each["fields"]],
            each["cold"],
        )
        for each in json.loads(result.stdout)["changes"]
    ]


def test_nothing_changes(tmp_path: Path) -> None:
    assert compared(tmp_path, EXAMPLE, "# another comment\n" + EXAMPLE) == []
    file = written(tmp_path, EXAMPLE)
    assert run("rules", "diff", file, file).stdout == "Nothing changes.\n"
    assert run("rules", "diff", str(PACKAGED)).stdout == "Nothing changes.\n"


@pytest.mark.parametrize(
    ("old", "new", "fields", "cold"),
    [
        (
            "warn: 1e4, trip: 1e6",
            "warn: 1e5, trip: 1e7",
            [("test.warn", "1e4", "1e5"), ("test.trip", "1e6", "1e7")],
            False,
        ),
        ("mode: enforce", "mode: warn", [("mode", "enforce", "warn")], False),
        ("probes: 10", "probes: 20", [("recovery.probes", "10", "20")], False),
        ("floor: 0.5%", "floor: 1%", [("test.baseline.floor", "0.5%", "1%")], True),
        ("trace: 3, w", "trace: 2, w", [("test.max_failures_per_trace", "3", "2")], True),
        ("    breadth", "    match: {tenant: t}\n    breadth", [("match.tenant", None, "t")], True),
    ],
)
def test_what_starts_cold(tmp_path: Path, old: str, new: str, fields: list[Any], cold: bool) -> None:
    whom = "tenant t" if "match" in new else "everyone"
    found = compared(tmp_path, EXAMPLE, changed(old, new))
    assert [each for each in found if each[0] == "changed"] == [
        ("changed", "tool-failing", scope, whom, fields, cold) for scope in ("ACTOR_TOOL", "TOOL")
    ]
    gone = [] if whom == "everyone" else ["ACTOR_TOOL", "TOOL"]
    assert [each for each in found if each[0] != "changed"] == [
        ("removed", "tool-failing", scope, "everyone but not tenant t", [], True) for scope in gone
    ]


def states(tmp_path: Path, old: str, new: str) -> dict[str, tuple[bool | None, bool]]:
    """For whom something changes: whether what was learned is lost, and whether holds are released."""
    files = written(tmp_path, old, "old.yaml"), written(tmp_path, new, "new.yaml")
    changes = json.loads(run("rules", "diff", *files, "--json").stdout)["changes"]
    assert {each["scope"] for each in changes} == {"ACTOR_TOOL"}
    return {each["whom"]: (each["cold"], each["released"]) for each in changes}


_OF_TOOLS = changed("[ACTOR_TOOL, TOOL]", "ACTOR_TOOL").replace("    breadth", "    # b")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("a*", "ab*", {"actor ab*": (True, False), "actor a* but not actor ab*": (True, True)}),
        ("a*", "b*", {"actor b*": (True, False), "actor a*": (True, True)}),
        ("a*", "*b", {"actor *b": (True, False), "actor a* but not actor *b": (True, True)}),
        ("ab*", "a*", {"actor a*": (True, False)}),
    ],
)
def test_whose_holds_a_narrower_match_releases(
    tmp_path: Path, before: str, after: str, expected: dict[str, Any]
) -> None:
    one, other = (_OF_TOOLS.replace("    # b", f"    match: {{actor: '{each}'}} # b") for each in (before, after))
    assert states(tmp_path, one, other) == expected


def test_whose_holds_a_milder_mode_releases(tmp_path: Path) -> None:
    kept = "  - {match: {actor: 'a*'}, set: {tool-failing: {mode: enforce}}}\n"
    warned = _OF_TOOLS.replace("mode: enforce", "mode: warn", 1)
    assert states(tmp_path, _OF_TOOLS, warned) == {"everyone": (False, True)}
    # The targets of the override keep theirs, which has to be said where everyone's are released.
    assert states(tmp_path, _OF_TOOLS + kept, warned + kept) == {"everyone": (False, True), "actor a*": (False, False)}
    milder = kept.replace("enforce", "shadow")
    assert states(tmp_path, _OF_TOOLS, _OF_TOOLS + milder) == {"actor a*": (False, True)}
    assert states(tmp_path, _OF_TOOLS + milder, _OF_TOOLS) == {"actor a*": (False, False)}


def test_a_changed_budget_keeps_what_was_spent(tmp_path: Path) -> None:
    assert compared(tmp_path, EXAMPLE, changed("usd: 5.00", "usd: 7.50")) == [
        ("changed", "cost-runaway", "ACTOR", "everyone", [("test.budget.usd", "5.00", "7.50")], False)
    ]


def test_rules_that_come_and_go(tmp_path: Path) -> None:
    renamed = changed("  cost-runaway:", "  cost-burn:")
    assert compared(tmp_path, EXAMPLE, renamed) == [
        ("added", "cost-burn", "ACTOR", "everyone", [], None),
        ("removed", "cost-runaway", "ACTOR", "everyone", [], True),
    ]
    file = written(tmp_path, EXAMPLE), written(tmp_path, renamed, "new.yaml")
    assert "holds released, but for a person's" in run("rules", "diff", *file).stdout


def test_for_whom_an_override_changes_something(tmp_path: Path) -> None:
    assert compared(tmp_path, EXAMPLE, _OVERRIDDEN) == [
        (
            "changed", "tool-failing", "ACTOR_TOOL", "actor support_*",
            [("test.trip", "1e6", "1e8"), ("mode", "enforce", "warn")], False,
        ),
        (
            "changed", "tool-failing", "ACTOR_TOOL", "actor support_* and actor support_eu",
            [
                ("test.trip", "1e6", "1e8"), ("mode", "enforce", "shadow"), ("recovery.by", "probe", "person"),
                ("recovery.cooldown", "30s", None), ("recovery.max_cooldown", "5m", None),
                ("recovery.probes", "10", None),
            ],
            False,
        ),
    ]  # fmt: skip


def test_what_an_override_keeps_is_not_shown_again(tmp_path: Path) -> None:
    new = _OVERRIDDEN.replace("by: probe, cooldown: 30s", "by: probe, cooldown: 20s")
    assert compared(tmp_path, _OVERRIDDEN, new) == [
        ("changed", "tool-failing", scope, "everyone", [("recovery.cooldown", "30s", "20s")], False)
        for scope in ("ACTOR_TOOL", "TOOL")
    ]


def test_objectives_and_the_rest(tmp_path: Path) -> None:
    new = changed('">99.5%"', '">99%"').replace("at_least: 1", "at_least: 2")
    assert compared(tmp_path, EXAMPLE, new) == [
        ("changed", "tool-success", "TOOL", "everyone", [("target", ">99.5%", ">99%")], False),
        ("changed", "blast_radius", "", "everyone", [("at_least", "1", "2")], None),
    ]


def test_an_objective_with_another_window_starts_cold(tmp_path: Path) -> None:
    old = 'version: 1\nobjectives: {ok: {metric: calls.ok, per: ACTOR, target: ">99%", window: 24h, min: 100}}'
    assert compared(tmp_path, old, old.replace("24h", "48h")) == [
        ("changed", "ok", "ACTOR", "everyone", [("window", "1d", "2d")], True)
    ]
    assert compared(tmp_path, old, old.replace("min: 100", "min: 200"))[0][-1] is False
    evals = 'version: 1\nobjectives: {e: {metric: evals.paired_delta, per: ACTOR, target: ">=-1%", suites: ["a"]}}'
    assert compared(tmp_path, evals, evals.replace("-1%", "-2%"))[0][-1] is None


def test_calls_are_not_shown_as_times(tmp_path: Path) -> None:
    old = (
        "version: 1\nbreakers: {n: {metric: tools.first_use, scope: ACTOR_TOOL, action: DISABLE_TOOL, "
        "test: {kind: first-use, after: 200}}}"
    )
    assert compared(tmp_path, old, old.replace("200", "5000000"))[0][4] == [("test.after", "200", "5000000")]


def test_how_a_comparison_looks(tmp_path: Path) -> None:
    new = (
        changed("floor: 0.5%", "floor: 1%")
        .replace("[ACTOR_TOOL, TOOL]", "ACTOR_TOOL")
        .replace("    breadth", "    # b")
    )
    result = run("rules", "diff", written(tmp_path, EXAMPLE, "a"), written(tmp_path, new, "b"))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "rule          per         for       value                before  now      state",
        "tool-failing  ACTOR_TOOL  everyone  test.baseline.floor  0.5%    1%       starts cold",
        "tool-failing  TOOL        everyone                               removed  holds released, but for a person's",
        "",
        "2 changes; what 2 rules have learned is lost",
    ]


# --- schema


def _valid(schema: dict[str, Any], value: Any, whole: dict[str, Any]) -> bool:
    """Whether a value is of a schema's form, for the words of JSON Schema that ours uses."""
    if "$ref" in schema:
        return _valid(whole["$defs"][schema["$ref"].rpartition("/")[2]], value, whole)
    for word in ("anyOf", "oneOf"):
        fitting = sum(_valid(each, value, whole) for each in schema.get(word, ()))
        if word in schema and (fitting < 1 or (word == "oneOf" and fitting > 1)):
            return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    kinds = {"string": str, "array": list, "object": dict, "integer": int, "number": (int, float), "null": type(None)}
    if "type" in schema and not isinstance(value, kinds[schema["type"]]):
        return False
    return _inside(schema, value, whole)


def _inside(schema: dict[str, Any], value: Any, whole: dict[str, Any]) -> bool:
    if isinstance(value, dict):
        fields, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        names, patterns = schema.get("propertyNames", {}), schema.get("patternProperties", {})
        return set(schema.get("required", ())) <= set(value) and all(
            _valid(names, key, whole)
            and (
                _valid(fields[key], item, whole)
                if key in fields
                else any(re.search(p, key) and _valid(form, item, whole) for p, form in patterns.items())
                or (not patterns and more is not False and (more is True or _valid(more, item, whole)))
            )
            for key, item in value.items()
        )
    if isinstance(value, list):
        items = schema.get("items", {})
        return len(value) >= schema.get("minItems", 0) and all(_valid(items, each, whole) for each in value)
    if isinstance(value, str):
        return re.search(schema.get("pattern", ""), value) is not None and len(value) >= schema.get("minLength", 0)
    if isinstance(value, int | float):
        return schema.get("minimum", value) <= value <= schema.get("maximum", value) and value > schema.get(
            "exclusiveMinimum", value - 1
        )
    return True


@pytest.mark.parametrize("text", [EXAMPLE, PACKAGED.read_text(encoding="utf-8")])
def test_the_schema_takes_what_is_right(text: str) -> None:
    schema = json.loads(run("rules", "schema").stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert _valid(schema, read(text.encode(), "f").content, schema)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version: 1", "version: 2"),
        ("mode: enforce", "mode: on"),
        ("floor: 0.5%", "flour: 0.5%"),
        ("kind: e-detector, ", ""),
        ("calls.failed", "calls.fail"),
        ("[ACTOR_TOOL, TOOL]", "[]"),
        ("cooldown: 30s", "cooldown: 30"),
        ('">95%"', "95"),
        ("p50:", "p51:"),
        ("probes: 10", "probes: 41"),
        ("  tool-failing:", "  Tool:"),
        ("5%/5m/30s", "5%/5m"),
    ],
)
def test_the_schema_refuses_what_is_wrong(old: str, new: str) -> None:
    schema = json.loads(run("rules", "schema", "--json").stdout)
    assert not _valid(schema, read(changed(old, new).encode(), "f").content, schema)


def test_the_schema_s_defaults_are_of_its_own_form_and_its_fields_are_explained() -> None:
    schema = json.loads(run("rules", "schema").stdout)
    for part in schema["$defs"].values():
        for name, field in part["properties"].items():
            assert field.get("description"), (part["title"], name)
            if field.get("default") is not None:
                assert _valid(field, field["default"], schema), (part["title"], name)
    metrics = schema["$defs"]["BreakerRule"]["properties"]["metric"]["anyOf"]
    about = {each.get("const"): each["description"] for each in metrics}
    assert about["spend.usd"] == "What an actor's trace steps and tool calls cost together."
    assert schema["$defs"]["Baseline"]["properties"]["floor"]["description"] == "The null is never below this rate."


# --- start


@pytest.mark.parametrize("arguments", [("rules", "--help"), ("rules", "explain", "--help")])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert not {name.partition(".")[0] for name in modules_after(*arguments)} & HEAVY
