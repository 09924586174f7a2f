"""What is wrong with one objective: whether its metric, targets and window go together."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from fuseboard_detectors.objectives import CELLS, WINDOW_CELLS
from fuseboard_streams.rules.catalogue import BREAKER_METRICS, OBJECTIVE_METRICS, Measure
from fuseboard_streams.rules.check_breakers import Finding
from fuseboard_streams.rules.compile_objectives import GRACE_US
from fuseboard_streams.rules.quantities import Target, duration_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fuseboard_streams.rules.document import Path
    from fuseboard_streams.rules.model import Objective

_SHORTEST_US: Final = 60_000_000
"""States are asked for once a minute."""
_LONGEST_US: Final = 31 * 86_400_000_000
_LONGEST_GRACE_US: Final = 3_600_000_000
"""Whatever is heard of an actor's sessions is remembered for twice as long."""


def check_objective(objective: Objective) -> Iterator[Finding]:
    """Everything that is wrong with an objective by itself, as it is in the file or as overrides make it."""
    measure = OBJECTIVE_METRICS.get(objective.metric)
    if not 0.5 < objective.confidence < 1:
        yield Finding(("confidence",), "expected a confidence above 50% and below 100%; usual is 95%.")
    if measure is None:
        yield Finding(("metric",), _unknown(objective.metric))
        return
    if objective.per not in measure.scopes:
        yield Finding(
            ("per",), f"{objective.metric} is not measured per {objective.per}; expected {_or(measure.scopes)}."
        )
    yield from _targets(objective, measure)
    yield from _fields(objective, measure)
    if measure.windowed and objective.window is not None:
        yield from _window(objective, objective.window)


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, OBJECTIVE_METRICS, 1)
    known = ", ".join(OBJECTIVE_METRICS)
    if name in BREAKER_METRICS:
        return f"{name} is a metric of breakers; those of objectives: {known}."
    return f"there is no metric {name!r}; " + (f"did you mean {close[0]}?" if close else f"those there are: {known}.")


def _targets(objective: Objective, measure: Measure) -> Iterator[Finding]:
    given = objective.target
    if isinstance(given, Target):
        if measure.form == "usd":
            yield Finding(("target",), 'expected dollars for each quantile, such as {p50: "<0.02", p95: "<0.10"}.')
        else:
            yield from _share(given, measure)
    elif measure.form != "usd":
        yield Finding(
            ("target",), f"{objective.metric} has no quantiles; expected one target, such as {_usual(measure)}."
        )
    else:
        for name, target in given.items():
            path: Path = ("target", name)
            if target.percent:
                yield Finding(path, f"it is in dollars; expected a target such as <0.02, found {target}.")
            elif (target.value * 1_000_000).denominator != 1:
                yield Finding(path, f"expected whole millionths of a dollar, found {target}.")
            elif target.upwards or target.value <= 0:
                yield Finding(
                    path, f"expected a limit above zero that costs stay below, such as <0.02, found {target}."
                )
        if {"p50", "p95"} <= given.keys() and given["p95"].value < given["p50"].value:
            yield Finding(("target", "p95"), "95% of tasks cannot cost less than half of them may; raise it.")


def _share(target: Target, measure: Measure) -> Iterator[Finding]:
    if target.upwards != measure.upwards:
        better = "more" if measure.upwards else "less"
        yield Finding(
            ("target",), f"{better} is better here; expected a target such as {_usual(measure)}, found {target}."
        )
        return
    lowest = -1 if measure.form == "difference" else 0
    if not lowest < target.value < 1:
        hint = " with a percent sign" if not target.percent and target.value > 1 else ""
        text = (
            f"no number of observations can show {target}; expected a share above {lowest * 100:g}% and below 100%"
            f"{hint}, such as {_usual(measure)}."
        )
        yield Finding(("target",), text)


def _usual(measure: Measure) -> str:
    if measure.form == "difference":
        return ">=-1%"
    return ">99.5%" if measure.upwards else "<0.1%"


def _fields(objective: Objective, measure: Measure) -> Iterator[Finding]:
    wanted = ("window", "min")
    for name in wanted:
        if measure.windowed and getattr(objective, name) is None:
            example = "window: 24h" if name == "window" else "min: 1000"
            yield Finding((), f"`{name}` is missing: {_WHY[name]}; add it, such as `{example}`.")
        elif not measure.windowed and getattr(objective, name) is not None:
            yield Finding((name,), "every complete run of an evaluation is tested by itself; remove it.")
    if measure.windowed and objective.window is not None:
        yield from _window(objective, objective.window)
    if objective.grace is not None and objective.metric != "sessions.traced":
        yield Finding(("grace",), "it is of sessions.traced alone; remove it.")
    if objective.suites and measure.form != "difference":
        yield Finding(("suites",), "they are of evals.paired_delta alone; remove them.")
    if not objective.suites and measure.form == "difference":
        yield Finding((), '`suites` is missing: which suites count; add them, such as `suites: ["*"]`.')


def _window(objective: Objective, window: int) -> Iterator[Finding]:
    """Whether a window divides into the cells that it is measured in, and the grace leaves enough of them."""
    if not _SHORTEST_US <= window <= _LONGEST_US:
        yield Finding(
            ("window",),
            f"expected a window from {duration_text(_SHORTEST_US)} to {duration_text(_LONGEST_US)}, found "
            f"{duration_text(window)}.",
        )
        return
    if window % WINDOW_CELLS:
        text = (
            f"{duration_text(window)} does not divide into {WINDOW_CELLS} cells of whole microseconds; take a multiple "
            "of 3s."
        )
        yield Finding(("window",), text)
        return
    if objective.metric != "sessions.traced":
        return
    grace, cells = GRACE_US if objective.grace is None else objective.grace, CELLS - WINDOW_CELLS - 1
    longest = min(cells * window // WINDOW_CELLS, _LONGEST_GRACE_US)
    if grace > longest:
        path: Path = ("window",) if objective.grace is None else ("grace",)
        text = (
            f"a grace of {duration_text(grace)}{'' if objective.grace else ', as where none is given,'} is too long "
            f"for a window of {duration_text(window)}: expected at most {cells} of its {WINDOW_CELLS} cells, and at "
            f"most {duration_text(_LONGEST_GRACE_US)}; shorten the grace or widen the window."
        )
        yield Finding(path, text)


_WHY = {"window": "over how long it is measured", "min": "how many observations it takes"}


def _or(names: tuple[str, ...]) -> str:
    return " or ".join(names)
