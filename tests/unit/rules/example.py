"""The rules file that the documents show, in full."""

from __future__ import annotations

EXAMPLE = """\
version: 1
defaults: {mode: shadow, severity: ticket, runbook: "docs/runbooks/{id}.md"}
false_trips: {per_day: 1}            # the whole file; `calibrate` turns it into a threshold per test
objectives:
  trace-coverage:    {metric: sessions.traced,    per: ACTOR, target: ">95%",   window: 1h,  min: 100, grace: 10m}
  tool-success:      {metric: calls.ok,           per: TOOL,  target: ">99.5%", window: 24h, min: 1000}
  policy-violations: {metric: actions.violating,  per: ACTOR, target: "<0.1%",  window: 24h, min: 1000}
  eval-regression:   {metric: evals.paired_delta, per: ACTOR, target: ">=-1%",  suites: ["key/*"], confidence: 95%}
  task-cost:         {metric: tasks.cost_usd, per: ACTOR, target: {p50: "<0.02", p95: "<0.10"}, window: 24h, min: 200}
breakers:
  tool-failing:
    metric: calls.failed
    scope: [ACTOR_TOOL, TOOL]        # TOOL needs breadth; while it is open it owns the blame
    test: {kind: e-detector, baseline: {floor: 0.5%, quantile: 99%}, max_failures_per_trace: 3, warn: 1e4, trip: 1e6}
    breadth: {actors: 3, share: 20%, max_per_actor: 3}
    action: DISABLE_TOOL
    mode: enforce
    recovery: {by: probe, cooldown: 30s, max_cooldown: 300s, probes: 10}   # by: probe | clear | window | person
  cost-runaway:
    metric: spend.usd
    scope: ACTOR
    test: {kind: burn, budget: {usd: 5.00, per: 24h}, windows: [5%/5m/30s, 10%/30m/3m, 25%/3h/15m]}
    ladder: [{action: FAST_MODEL_ONLY}, {action: HALT, after: 10m, severity: critical}]
    mode: enforce
    recovery: {by: clear, quiet: 5m}
blast_radius: {tenant_actors: 10%, at_least: 1, window: 1m, exempt: [critical, hard-cap, session, manual]}
overrides:
  - {match: {actor: "support_*", tool: book_reservation}, set: {tool-success: {target: ">60%"}}}
"""


def changed(old: str, new: str) -> str:
    """The example with one text in it replaced."""
    assert EXAMPLE.count(old) >= 1, old
    return EXAMPLE.replace(old, new, 1)
