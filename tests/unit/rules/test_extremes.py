"""The largest and finest values that a file may hold, in a shard that runs them; what is beyond them is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from fuseboard_detectors.guard import GuardParams
from fuseboard_detectors.objectives import ObjectiveParams
from fuseboard_schemas.errors import ConfigurationError
from fuseboard_schemas.records import Decision, Outcome
from fuseboard_streams.core.events import DECISIONS, REQUESTS
from fuseboard_streams.core.settings import MOST_PRIORS, CoreSettings, Prior
from fuseboard_streams.rules.compile import compile_rules
from fuseboard_streams.rules.document import RulesError
from fuseboard_streams.rules.overrides import MOST_COMBINATIONS, MOST_OVERRIDES
from fuseboard_streams.rules.schema import json_schema
from tests.support.calls import Call, fold, make_shard
from tests.support.events import give, made, prepared

LARGEST = """
version: 1
breakers:
  failing: {metric: calls.failed, scope: [ACTOR_TOOL, TOOL], action: DISABLE_TOOL,
    test: {kind: e-detector, baseline: {floor: 0.000001%, quantile: 99.99%}, max_failures_per_trace: 31, warn: 1e100,
      trip: 1e100},
    breadth: {actors: 1000000, share: 33.333333%, max_per_actor: 1000000},
    recovery: {by: probe, cooldown: 366d, max_cooldown: 366d, probes: 40}}
  known: {metric: calls.failed, scope: ACTOR, action: HALT,
    test: {kind: e-detector, baseline: {known: 99.999999%}, warn: 1.1, trip: 1.1}}
  denied: {metric: actions.violating, scope: ACTOR, action: HALT, test: {kind: distinct, traces: 8, of_last: 10000,
    within: 7d}}
  burn: {metric: spend.usd, scope: ACTOR, action: HALT, mode: enforce, recovery: {by: clear, quiet: 366d},
    test: {kind: burn, budget: {usd: 1000000000, per: 366d}, windows: [99.999999%/24h/1h, 33.333333%/5m/5s]}}
  cap: {metric: spend.usd, scope: ACTOR, action: HALT, test: {kind: cap, usd: 1000000000, per: day}}
  loop: {metric: calls.repeated, scope: SESSION, action: HALT, test: {kind: runs, failures: 254, identical: 254}}
  first: {metric: tools.first_use, scope: ACTOR_TOOL, action: REQUIRE_APPROVAL,
    test: {kind: first-use, after: 1000000000}}
  silent: {metric: events.silent, scope: ACTOR, action: HALT, mode: enforce,
    test: {kind: silence, requests: 1000000000, lasting: 7d}}
  soon: {metric: events.silent, scope: ACTOR, action: HALT, test: {kind: silence, requests: 1, lasting: 1ms}}
  lost: {metric: events.lost, scope: ACTOR, action: HALT,
    test: {kind: lost, share: 33.333333%, within: 366d, min: 1000000000}}
  short: {metric: events.lost, scope: ACTOR, action: HALT, test: {kind: lost, share: 0.000001%, within: 1ms, min: 1}}
  ungated: {metric: calls.ungated, scope: ACTOR, action: HALT, test: {kind: ungated, after: 366d}}
  slow: {metric: calls.latency, scope: ACTOR_TOOL, action: DISABLE_TOOL,
    test: {kind: exceed, quantile: 99.99%, reference: 50000, warn: 1e4, trip: 1e100}}
  dear: {metric: calls.cost_usd, scope: ACTOR_TOOL, action: REQUIRE_APPROVAL,
    test: {kind: exceed, quantile: 99.99%, reference: 50000, warn: 1e4, trip: 1e100}}
  violating: {metric: actions.violating, scope: ACTOR, action: HALT,
    test: {kind: e-detector, baseline: {known: 99.999999%}, warn: 1.1, trip: 1.1}}
objectives:
  ok: {metric: calls.ok, per: ACTOR_TOOL, target: ">33.333333%", window: 31d, min: 1000000000}
  denied-actions: {metric: actions.violating, per: ACTOR, target: "<0.000001%", window: 31d, min: 1}
  tasks: {metric: tasks.cost_usd, per: ACTOR, target: {p50: "<0.000001", p95: "<1000000000"}, window: 1m, min: 1}
  traced: {metric: sessions.traced, per: ACTOR, target: ">33.333333%", window: 31d, min: 1, grace: 1h}
blast_radius: {tenant_actors: 33.333333%, at_least: 1000000, window: 10s}
"""


def test_a_shard_runs_the_largest_values() -> None:
    shard = make_shard(rules=compile_rules(LARGEST.encode(), "f").rules)
    calls = [
        Call(0.1 * i, Outcome.ERROR if i % 3 else Outcome.OK, "a", trace="1" * 32, seq=i * i, cost=9)
        for i in range(300)
    ]
    fold(shard, calls)
    give(shard, prepared(REQUESTS, [made(REQUESTS, 31 + i) for i in range(6)]))
    denials = [
        made(DECISIONS, 40 + i, decision=Decision.DENY, trace_id="1" * 32, span_id=f"{i:016x}") for i in range(9)
    ]
    give(shard, prepared(DECISIONS, denials))
    assert {name for name, count in shard.keys.items() if not count} <= {"rings"}
    shard.begin()
    shard.advance(shard.stream_time + 3_600_000_000)
    shard.commit()
    assert shard.rules_in_force


def test_a_shard_runs_every_number_of_the_guard() -> None:
    for window in ("1ms", "7ms", "10s", "100s", "1m", "366d"):
        text = f"version: 1\nblast_radius: {{window: {window}}}\n"
        radius = compile_rules(text.encode(), "f").rules.blast_radius
        assert radius is not None
        GuardParams(radius.share, radius.at_least, radius.window_us)


@pytest.mark.parametrize(("window", "grace"), [("1m", "10s"), ("35m", "10m"), ("24h", "1h"), ("31d", "1h")])
def test_what_an_objective_may_be_is_what_its_detector_takes(window: str, grace: str) -> None:
    fields = f'target: ">33.333333%", window: {window}, min: 1, grace: {grace}'
    text = f"objectives: {{o: {{metric: sessions.traced, per: ACTOR, {fields}}}}}"
    objective = compile_rules(f"version: 1\n{text}".encode(), "f").file.objectives["o"]
    assert objective.window is not None
    assert objective.grace is not None
    limit = 1 - objective.target.value  # type: ignore[union-attr]
    params = ObjectiveParams(limit.as_integer_ratio(), objective.window, objective.min or 0, objective.grace)
    assert params.cells_of_grace <= 8


def _integers(part: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    if isinstance(part, dict):
        mine = [(path, part)] if part.get("type") == "integer" else []
        return mine + [each for name, value in part.items() for each in _integers(value, f"{path}/{name}")]
    if isinstance(part, list):
        return [each for i, value in enumerate(part) for each in _integers(value, f"{path}/{i}")]
    return []


def test_every_whole_number_of_a_file_has_a_largest_value() -> None:
    found = [(path, part) for path, part in _integers(json_schema()) if "const" not in part]
    assert len(found) >= 14
    assert [path for path, part in found if not part.get("maximum", np.inf) <= 1_000_000_000] == []


NUMBERS = re.findall(r"(\w+): ([0-9]{2,10})(?=[,}\s])", LARGEST)


@pytest.mark.parametrize("name", sorted({name for name, _ in NUMBERS} - {"usd"}))
def test_one_more_is_refused(name: str) -> None:
    value = next(value for each, value in NUMBERS if each == name)
    with pytest.raises(RulesError, match=re.escape(f"a number up to {float(value):g}, found {int(value) + 1}.")):
        compile_rules(LARGEST.replace(f"{name}: {value}", f"{name}: {int(value) + 1}", 1).encode(), "f")


def test_the_number_of_a_targets_settings_fits_into_its_column() -> None:
    variants = MOST_OVERRIDES + MOST_COMBINATIONS + 1
    assert variants * (MOST_PRIORS + 1) <= np.iinfo(np.int16).max
    with pytest.raises(ConfigurationError, match=f"{MOST_PRIORS + 1} priors, expected at most {MOST_PRIORS}"):
        CoreSettings(priors=(Prior(1, 1),) * (MOST_PRIORS + 1))
