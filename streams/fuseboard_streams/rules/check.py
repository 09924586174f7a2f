"""What the parts of a rules file mean together: everything that is wrong with it, each with its line and its place."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pydantic import ValidationError

from fuseboard_detectors.failure import FailureParams
from fuseboard_streams.core.ruleset import GUARD
from fuseboard_streams.rules.check_breakers import Finding, check_breaker, check_runbook
from fuseboard_streams.rules.check_objectives import check_objective
from fuseboard_streams.rules.document import dotted
from fuseboard_streams.rules.load import frozen, mistakes
from fuseboard_streams.rules.model import BreakerRule, Objective
from fuseboard_streams.rules.overrides import (
    MOST_COMBINATIONS,
    MOST_OVERRIDES,
    clashes,
    combinations,
    layers_of,
    meet,
    merged,
    names,
    neighbours,
    reaches,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fuseboard_streams.rules.document import Document, Path, Plain, Problem
    from fuseboard_streams.rules.model import Defaults, RulesFile
    from fuseboard_streams.rules.overrides import Layer

Section: TypeAlias = Literal["breakers", "objectives"]
_FIXED: Final = {
    "breakers": ("metric", "scope", "match", "breadth"),
    "objectives": ("metric", "per"),
}
"""What makes a rule the one it is, and no override can change."""
_FIXED_OF_TEST: Final = {"max_failures_per_trace": "e-detector", "per": "cap"}
"""What of a test is the same for all targets of its rule, and of which kind of test it is: how failures of a trace are
counted, and what is summed."""


def check(file: RulesFile, document: Document, base: FailureParams | None = None) -> list[Problem]:
    """Everything that is wrong with a rules file of the right form, and what is worth a warning.

    Args:
        file: The file's model.
        document: The file, for the lines.
        base: The detector's settings that no file names; None for the defaults.

    Returns:
        In the order of the file; those with ``warning`` do not keep it from being used.
    """
    found = list(_all(file, document, FailureParams() if base is None else base))
    # Two ways to the same place may find the same.
    problems = [document.problem(each.path, each.text, warning=each.warning) for each in dict.fromkeys(found)]
    return sorted(problems, key=lambda problem: problem.line or 0)


def _all(file: RulesFile, document: Document, base: FailureParams) -> Iterator[Finding]:
    yield from check_runbook(file.defaults.runbook, ("defaults", "runbook"))
    if not (file.breakers or file.objectives):
        yield Finding((), "there is no breaker and no objective: in force, this file would remove all.", warning=True)
    if GUARD in file.breakers:
        text = "this is the name under which what `blast_radius` holds back is told; rename the breaker."
        yield Finding(("breakers", GUARD), text)
    for name in file.breakers.keys() & file.objectives.keys():
        yield Finding(("breakers", name), "an objective has this name too, and overrides could not tell; rename one.")
    for name, rule in file.breakers.items():
        found = list(check_breaker(rule, base, file.defaults))
        yield from (_at(("breakers", name), each) for each in found)
        yield from _overridden(file, document, "breakers", name, found, base)
    for name, objective in file.objectives.items():
        found = list(check_objective(objective))
        yield from (_at(("objectives", name), each) for each in found)
        yield from _overridden(file, document, "objectives", name, found, base)
    yield from _rivals(file)
    yield from _targets_of_overrides(file, document)


def _at(before: Path, finding: Finding) -> Finding:
    return Finding((*before, *finding.path), finding.text, finding.warning)


def _rivals(file: RulesFile) -> Iterator[Finding]:
    """Breakers that would need a second failure statistic for a scope: a shard keeps one, whoever it is for."""
    owners: dict[str, str] = {}
    for name, rule in file.breakers.items():
        if rule.metric != "calls.failed" or rule.test.kind != "e-detector":
            continue
        for scope in dict.fromkeys(rule.scope):
            if scope in owners:
                other = owners[scope]
                text = (
                    f"{other} tests the failed calls per {scope} already, and one rule can, whatever their `match`; "
                    f"remove this one, let {other} match its targets too, and give them other values by an override: "
                    f"{{match: ..., set: {{{other}: ...}}}}."
                )
                yield Finding(("breakers", name, "scope"), text)
            else:
                owners[scope] = name


# --- overrides


def _targets_of_overrides(file: RulesFile, document: Document) -> Iterator[Finding]:
    known = [*file.breakers, *file.objectives]
    for i, override in enumerate(file.overrides):
        for name, fields in override.set.items():
            path: Path = ("overrides", i, "set", name)
            section: Section = "breakers" if name in file.breakers else "objectives"
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {close[0]}?" if close else f"those there are: {', '.join(known) or 'none'}."
                yield Finding(path, f"there is no breaker or objective {name!r}; {hint}")
                continue
            if not fields:
                yield Finding(path, "it sets nothing; name the fields that differ, or remove it.")
            for fixed in _fixed(fields, written(document, section, name), section):
                text = f"no override can change `{dotted(fixed)}`: {_why_fixed(fixed, file.breakers.get(name))}."
                yield Finding((*path, *fixed), text)
            if section == "breakers":
                rule = file.breakers[name]
                scopes, of_rule = rule.scope, names(rule.match)
            else:
                scopes, of_rule = (file.objectives[name].per,), ("*", "*", "*")
            mine = names(override.match)
            if not meet(mine, of_rule) or not any(reaches(mine, scope) for scope in scopes):
                text = f"no target of {name} ({', '.join(scopes)}) fits this override's patterns: it changes nothing."
                yield Finding(path, text, warning=True)


def _overridden(
    file: RulesFile, document: Document, section: Section, name: str, of_base: list[Finding], base: FailureParams
) -> Iterator[Finding]:
    """What overrides make wrong about a rule that is right without them."""
    raw = written(document, section, name)
    layers = [each for each in layers_of(file, document, name) if not _fixed(each.fields, raw, section)]
    sets = combinations(layers)
    if sets is None:
        what = (
            f"they are {len(layers)}, more than {MOST_OVERRIDES}"
            if len(layers) > MOST_OVERRIDES
            else f"targets may fit several of the {len(layers)} in more than {MOST_COMBINATIONS} ways"
        )
        mend = "let fewer patterns overlap, or give some targets a rule of their own."
        text = f"too many overrides of {name}: {what}; {mend}"
        yield Finding(("overrides", layers[-1].index, "set", name), text)
        return
    meeting = list(neighbours([layer.names for layer in layers]))
    for i, later in enumerate(layers):
        for one in (layers[j] for j in sorted(meeting[i]) if j < i):
            for path in clashes(one, later):
                line = document.line_of(("overrides", one.index))
                text = (
                    f"the override on line {line} sets `{dotted(path)}` too, and some targets fit both; expected the "
                    "later patterns to be strictly narrower: narrow them, swap the two, or remove one."
                )
                yield Finding(("overrides", later.index, "set", name, *path), text)
    known, said = set(of_base), set(of_base)
    for members in sets:
        for finding in _of_merged(merged(raw, members), section, base, file.defaults):
            # What one override makes wrong need not be said again of several.
            if finding not in (known if len(members) == 1 else said):
                said.add(finding)
                text = finding.text
                if len(members) > 1:
                    lines = ", ".join(str(document.line_of(("overrides", each.index))) for each in members)
                    text = f"{text.removesuffix('.')} (where the overrides on lines {lines} meet)."
                yield Finding(_blamed(members, name, finding.path), text, finding.warning)


def _fixed(fields: dict[str, Plain], raw: dict[str, Plain], section: Section) -> list[Path]:
    """What an override sets that makes a rule the one it is."""
    found: list[Path] = [(each,) for each in fields if each in _FIXED[section]]
    mine, test = fields.get("test"), raw.get("test")
    if isinstance(mine, dict) and isinstance(test, dict):
        changed = (name for name in ("kind", *_FIXED_OF_TEST) if name in mine and mine[name] != test.get(name))
        found += [("test", name) for name in changed if name == "kind" or test["kind"] == _FIXED_OF_TEST[name]]
    return found


def _why_fixed(fixed: Path, rule: BreakerRule | None) -> str:
    if fixed[-1] == "max_failures_per_trace" and rule is not None and rule.metric == "calls.failed":
        return "failures of a trace are counted once for all targets of a rule; set it in the rule itself"
    return "that would be another rule; write one of its own"


def _of_merged(raw: dict[str, Plain], section: Section, base: FailureParams, defaults: Defaults) -> list[Finding]:
    try:
        if section == "breakers":
            return list(check_breaker(BreakerRule.model_validate(frozen(raw)), base, defaults))
        return list(check_objective(Objective.model_validate(frozen(raw))))
    except ValidationError as error:
        return [Finding(path, text) for path, text in mistakes(raw, error).items()]


def _blamed(members: Sequence[Layer], name: str, path: Path) -> Path:
    """Where in the file the last override stands that has to do with a place in a merged rule."""
    best, depth = members[-1], 0
    for layer in reversed(members):
        shared = _depth(layer.fields, path)
        if shared > depth:
            best, depth = layer, shared
    return ("overrides", best.index, "set", name, *path)


def _depth(fields: Plain, path: Path) -> int:
    """How much of a path there is in what an override sets."""
    for i, part in enumerate(path):
        if isinstance(fields, dict) and part in fields:
            fields = fields[str(part)]
        else:
            return i
    return len(path)
