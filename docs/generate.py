"""Writes the generated tables of the documents: settings, topics, rules, metrics, and ``ARCHITECTURE.md``'s file map.

Run ``.venv/bin/python docs/generate.py`` after changing a setting, a topic, a metric or a module; a test compares.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuseboard.envelope import TOPIC_OF
from fuseboard.settings import Settings
from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas import catalogue
from fuseboard_schemas.records import Action, BreakerState, Scope
from fuseboard_schemas.topics import DAY_MS, TOPICS, Topic
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.counters import ShardCounters
from fuseboard_streams.core.settings import CoreSettings, Prior
from fuseboard_streams.rules import catalogue as rules_catalogue
from fuseboard_streams.rules.schema import json_schema
from fuseboard_streams.worker.decoding import INPUTS
from fuseboard_streams.worker.loop import OUTPUTS
from fuseboard_streams.worker.metrics import STAGES, ShardFacts, WorkerMetrics
from fuseboard_streams.worker.settings import BY_RULES, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric

ROOT = Path(__file__).parents[1]
NOBODY = "nobody yet"
_MARK = "<!-- generated: {} -->"
_END = "<!-- end -->"
_COMPUTED = {
    "worker_id": "host name and a random part",
    "actor": "none: must be given",
    "spool_dir": "a folder of this user's state",
}
_OWN_WORDS = {
    "prior_alpha": "The prior failure rate is Beta(`prior_alpha`, `prior_beta`); see `[[core.priors]]`.",
    "prior_beta": "See `prior_alpha`.",
    "max_tools": "Pairs of actor and tool in one shard, likewise.",
    "max_clients": "Clients in one shard; events of further ones are counted without being deduplicated.",
    "rule": "Name of the rule in signals and commands.",
    "rules_version": "Version of the rules in signals, commands and heartbeats.",
    "runbook": "What commands name for reading.",
    "alpha": "First parameter of the prior Beta(alpha, beta).",
    "beta": "Second parameter.",
    "tenant": "Pattern (`*`, `?`) of the tenants it is for.",
    "tool": "Pattern of the tools it is for.",
}
"""Fields whose class documents several of them together."""
_GROUPED = 10_000
"""From here on digits are written in groups."""
_NESTED = ("failure", "breaker", "priors", "core")


def described(cls: type) -> dict[str, str]:
    """The string under each field of a class, as one paragraph."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(text.value.value).split("\n\n")[0].split())
    return found


def attributes(cls: type) -> dict[str, str]:
    """The ``Attributes:`` section of a class's docstring."""
    section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def table(names: dict[str, Any], words: dict[str, str], variable: Callable[[str], str] | None) -> str:
    """Settings as a Markdown table.

    Args:
        names: Setting to its default.
        words: Setting to what it is.
        variable: Setting to its environment variable; None leaves the column out.
    """
    lines = ["| setting | environment | default | what it is |", "|---|---|---|---|"]
    if variable is None:
        lines = ["| setting | default | what it is |", "|---|---|---|"]
    for name, default in names.items():
        text = words.get(name) or _OWN_WORDS[name]
        cells = [f"`{name}`", shown(name, default), text.replace("``", "`").replace("|", "\\|")]
        if variable is not None:
            cells.insert(1, f"`{variable(name)}`")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(name: str, default: Any) -> str:  # noqa: ANN401 - any setting's value
    """A default as it would be written."""
    if name in _COMPUTED:
        return _COMPUTED[name]
    if default is None or default in ("", {}, ()):
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int | float):
        return f"`{default:_.0f}`" if default >= _GROUPED else f"`{default:g}`"
    return f"`{list(default)}`" if isinstance(default, tuple) else f"`{default}`"


def _defaults(cls: type, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    found = {}
    for field in dataclasses.fields(cls):
        if field.name not in leave_out:
            made = field.default_factory
            found[field.name] = field.default if made is dataclasses.MISSING else made()
    return found


def sdk() -> str:
    """Settings of the SDK."""
    return table(_defaults(Settings), attributes(Settings), lambda name: _variable("", name))


def worker() -> str:
    """Settings of the worker but for detection and breakers."""
    fields = {
        name: field.get_default(call_default_factory=True)
        for name, field in WorkerSettings.model_fields.items()
        if name not in _NESTED
    }
    return table(fields, described(WorkerSettings), lambda name: _variable("", name))


def core() -> str:
    """Settings of the core but for its parts, and for what rules say."""
    return table(
        _defaults(CoreSettings, (*_NESTED, *BY_RULES["core"])),
        described(CoreSettings),
        lambda name: _variable("CORE__", name),
    )


def failure() -> str:
    """Settings of the failure detector."""
    return table(
        _defaults(FailureParams, tuple(BY_RULES["failure"])),
        described(FailureParams),
        lambda name: _variable("CORE__FAILURE__", name),
    )


def breaker() -> str:
    """Settings of the breakers."""
    return table(
        _defaults(BreakerParams, tuple(BY_RULES["breaker"])),
        described(BreakerParams),
        lambda name: _variable("CORE__BREAKER__", name),
    )


def priors() -> str:
    """Settings of one entry of the priors, which have no environment variables."""
    return table(_defaults(Prior) | {"alpha": None, "beta": None}, described(Prior), None)


def _variable(middle: str, name: str) -> str:
    if name in ("kafka", "registry"):
        return f"FUSEBOARD_{name.upper()}__<KEY>"
    return f"FUSEBOARD_{middle}{name.upper()}"


def topics() -> str:
    """All topics."""
    lines = [
        "| topic | key | record | schema id | cleanup | retention | written by | read by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for topic in TOPICS:
        identity = f"0x{catalogue.packaged_id(topic.record):08x}"
        cells = (
            f"`{topic.name}`", topic.key, topic.record, f"`{identity}`", topic.cleanup, _retention(topic),
            _writers(topic), _readers(topic),
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _retention(topic: Topic) -> str:
    if topic.retention_ms < 0:
        return "latest per key" if topic.cleanup == "compact" else "unlimited, trimmed by the worker"
    return f"{topic.retention_ms // DAY_MS} d"


_GUESTS = ("policy-decisions", "session-requests", "signals")
"""Topics that are there for programs that are not ours."""


_COMMANDS_THAT_WRITE = {"rules": "rules apply", "overrides": "breakers trip"}
"""Topics that people write to, and a command with which they do."""


def _writers(topic: Topic) -> str:
    writers = ["SDK"] if topic.attribute in TOPIC_OF.values() else []
    writers += ["worker"] if topic.name in OUTPUTS else []
    writers += ["other programs"] if topic.name in _GUESTS else []
    writers += [f"`{_COMMANDS_THAT_WRITE[topic.name]}`"] if topic.name in _COMMANDS_THAT_WRITE else []
    return ", ".join(writers) or NOBODY


def _readers(topic: Topic) -> str:
    readers = ["worker"] if topic.name in (*INPUTS, "state") else []
    readers += ["SDK"] if topic.name in ("breaker-commands", "heartbeats") else []
    readers += ["`top`, `breakers`, `actors`"] if topic.name in ("tool-calls", "breaker-commands") else []
    readers += ["`breakers show`"] if topic.name == "enforcement-acks" else []
    readers += ["`top`, `doctor`, `rules`"] if topic.name == "heartbeats" else []
    readers += ["`rules show`"] if topic.name == "rules" else []
    readers += ["`actors`"] if topic.name == "state" else []
    readers += ["`top`, `actors`"] if topic.name == "signals" else []
    return ", ".join(readers) or ("people, with `tap`" if _writers(topic) != NOBODY else NOBODY)


_CORE_WORDS = {
    "events": "Events read: tool calls and all others that have a time. Signals of the workers themselves are none.",
    "rejected": "Events that could not be used though they could be decoded; they are dead letters.",
    "duplicates": "Events that were dropped because they had been seen.",
    "late": "Events too far behind the newest of their topic to decide anything.",
    "clamped": "Events from the future, set back to their arrival.",
    "probes": "Tool calls that were probes.",
    "warnings": "Statistics that reached the warn level.",
    "trips": "Statistics that reached the trip level.",
    "traces_evicted": "Traces that were forgotten because the table of traces was full: their caps begin anew.",
    "acks": "Acknowledgements by enforcers that were folded into the state.",
}
"""Counters of the core whose class says nothing about them."""
_UNITS = {"seconds": "s", "bytes": "B"}


def _worker_metrics() -> WorkerMetrics:
    """The metrics of a worker that has one shard, so that every family has a sample of what can be without an event."""
    made = WorkerMetrics("", "", "")
    made.shards[0] = ShardFacts("ready", keys={"tools": 0})
    return made


def metrics() -> str:
    """All metrics of a worker."""
    made = _worker_metrics()
    declared = {each._name: each._labelnames for each in vars(made).values() if hasattr(each, "_labelnames")}
    lines = ["| metric | type | unit | labels | what it is |", "|---|---|---|---|---|"]
    for family in made.registry.collect():
        if not family.name.startswith("fuseboard_"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = declared.get(family.name, family.samples[0].labels if family.samples else ())
        unit = _UNITS.get(family.name.rsplit("_", 1)[1], "1")
        cells = (f"`{name}`", family.type, unit, ", ".join(f"`{label}`" for label in labels), _meaning(family))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _meaning(family: Metric) -> str:
    if family.name == "fuseboard_worker_info":
        return "Always 1; the labels say which worker it is."
    core = family.name.removeprefix("fuseboard_core_")
    if core == family.name:
        return str(family.documentation)
    return described(ShardCounters).get(core) or _CORE_WORDS[core]


def labels() -> str:
    """What the labels of the metrics can be."""
    rows = {
        "topic": f"an input topic without the prefix: {_listed(INPUTS)}",
        "reason": "why a record is a dead letter; see [topics](topics.md)",
        "outcome": _listed(("committed", "aborted")),
        "stage": _listed(STAGES),
        "scope": _listed(each.value for each in Scope if each is not Scope.OTHER),
        "state": (
            f"of a breaker: {_listed(each.value for each in BreakerState)}; of a shard: {_listed(_shard_states())}"
        ),
        "shard": "number of the partition",
        "table": "table of the state",
        "version, worker_id, group": "as in the heartbeats",
    }
    return "\n".join(
        [
            "| label | values |",
            "|---|---|",
            *(f"| {_listed(name.split(', '))} | {text} |" for name, text in rows.items()),
        ]
    )


def _shard_states() -> list[str]:
    families = _worker_metrics().registry.collect()
    return [sample.labels["state"] for each in families if each.name == "fuseboard_shards" for sample in each.samples]


def _listed(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def rule_metrics() -> str:
    """Metrics of breakers: what each is, per what it can be had, and the tests with what releases them."""
    lines = ["| metric | what it is | per | test: released by |", "|---|---|---|---|"]
    named = {**rules_catalogue.BREAKER_METRICS, f"{rules_catalogue.SIGNALS}*": rules_catalogue.SIGNAL_METRIC}
    for name, metric in named.items():
        tests = ", ".join(
            f"`{kind}`: {' or '.join(rules_catalogue.recoveries(metric, kind, metric.scopes[0]))}"
            for kind in metric.tests
        )
        scopes = "any" if metric.scopes == rules_catalogue.SCOPES else _listed(metric.scopes)
        lines.append(f"| `{name}` | {metric.about} | {scopes} | {tests} |")
    return "\n".join(lines)


def rule_objectives() -> str:
    """Metrics of objectives."""
    forms = {"share": "`>99.5%` or `<0.1%`", "difference": "`>=-1%`", "usd": '`{p50: "<0.02", p95: "<0.10"}`'}
    lines = ["| metric | what it is | per | target, such as |", "|---|---|---|---|"]
    for name, measure in rules_catalogue.OBJECTIVE_METRICS.items():
        lines.append(f"| `{name}` | {measure.about} | {_listed(measure.scopes)} | {forms[measure.form]} |")
    return "\n".join(lines)


def rule_actions() -> str:
    """Which action fits which scope."""
    actions = list(dict.fromkeys(action for fitting in rules_catalogue.ACTIONS.values() for action in fitting))
    actions.sort(key=lambda action: list(Action).index(Action(action)))
    lines = [
        f"| | {_listed(rules_catalogue.ACTIONS).replace(', ', ' | ')} |",
        "|---" * (1 + len(rules_catalogue.ACTIONS)) + "|",
    ]
    for action in actions:
        marks = ("yes" if action in fitting else "" for fitting in rules_catalogue.ACTIONS.values())
        lines.append(f"| `{action}` | {' | '.join(marks)} |")
    return "\n".join(lines)


_TESTS = {
    "e-detector": "EDetector", "distinct": "Distinct", "burn": "Burn", "cap": "Cap", "exceed": "Exceed", "runs": "Runs",
    "first-use": "FirstUse", "silence": "Silence", "lost": "Lost", "ungated": "Ungated", "signal": "FromSignal",
}  # fmt: skip
_PARTS = {"baseline": "Baseline", "budget": "Budget"}


def rule_tests() -> str:
    """Every kind of test with its fields."""
    schema = json_schema()["$defs"]
    lines = ["| test | field | default | what it is |", "|---|---|---|---|"]
    for kind, title in _TESTS.items():
        lines.append(f"| `{kind}` | | | {schema[title]['description']} |")
        lines += [f"| | {row}" for row in _rows(schema, title, "")]
    return "\n".join(lines)


def rule_fields() -> str:
    """The fields of a breaker."""
    lines = ["| field | default | what it is |", "|---|---|---|"]
    schema = json_schema()["$defs"]
    lines += [f"| {row}" for row in _rows(schema, "BreakerRule", "")]
    for name, title in (("recovery", "RecoveryRule"), ("breadth", "Breadth"), ("ladder[]", "Rung")):
        lines += [f"| {row}" for row in _rows(schema, title, f"{name}.")]
    return "\n".join(lines)


def _rows(schema: dict[str, Any], title: str, before: str) -> list[str]:
    rows: list[str] = []
    part = schema[title]
    for name, field in part["properties"].items():
        if name == "kind":
            continue
        if name in _PARTS:
            rows += _rows(schema, _PARTS[name], f"{before}{name}.")
            continue
        default = field.get("default")
        must = name in part.get("required", ())
        shown = f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
        plain = "must be given" if must else "" if default is None or isinstance(default, list | dict) else shown
        rows.append(f"`{before}{name}` | {plain} | {field['description']} |")
    return rows


FOLDERS = {
    "sdk/fuseboard": "What an agent imports. Two threads per process: the publisher's and the follower's.",
    "schemas/fuseboard_schemas": (
        "The contracts. `avsc/` holds the current Avro schema of each record, `released/` every version that was ever "
        "released, with its id in `ids.json`."
    ),
    "schemas/fuseboard_schemas/records": "Generated: one frozen dataclass for each record.",
    "detectors/fuseboard_detectors": "Mathematics on numpy arrays of many keys.",
    "streams/fuseboard_streams/core": "The pure core: no I/O, no clock, no global randomness.",
    "streams/fuseboard_streams/rules": "The rules file: from its text to what the core runs on.",
    "streams/fuseboard_streams/worker": "The process around the core: all of Kafka is here.",
    "streams/fuseboard_streams": "What worker, command line and demo share.",
    "streams/fuseboard_streams/cli": "The command line; each sub-command is imported when it is called.",
    "streams/fuseboard_streams/cli/render": "Records and numbers in, text out.",
    "streams/fuseboard_streams/demo": "`fuseboard demo`. `data/` holds the recording and its licence.",
}
"""The packages' folders, in the order of the file map."""


def file_map() -> str:
    """Every module of the packages with the first sentence of its docstring."""
    parts = []
    for folder, intro in FOLDERS.items():
        files = sorted(path for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py")
        rows = [f"| `{path.name}` | {_about(path)} |" for path in files]
        parts.append("\n".join([f"### `{folder}/`\n\n{intro}\n", "| file | what it does |", "|---|---|", *rows]))
    return "\n" + "\n\n".join(parts) + "\n"


def _about(path: Path) -> str:
    words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    line = re.sub(r":\w+:`([^`]*)`", r"`\1`", " ".join(words.split("\n\n")[0].split()))
    return line.rstrip(".").replace("``", "`").replace("|", "\\|")


SECTIONS: dict[str, dict[str, Callable[[], str]]] = {
    "docs/configuration.md": {
        "sdk": sdk,
        "worker": worker,
        "core": core,
        "failure": failure,
        "breaker": breaker,
        "priors": priors,
    },
    "docs/topics.md": {"topics": topics},
    "docs/rules.md": {
        "rule metrics": rule_metrics,
        "rule tests": rule_tests,
        "rule actions": rule_actions,
        "rule fields": rule_fields,
        "rule objectives": rule_objectives,
    },
    "docs/metrics.md": {"metrics": metrics, "labels": labels},
    "ARCHITECTURE.md": {"file map": file_map},
}
"""Page to the generated sections in it."""


def rendered(page: str, text: str) -> str:
    """The text of a page with its generated sections made anew.

    Raises:
        ValueError: A section's marks are not in it.
    """
    for name, make in SECTIONS[page].items():
        start = _MARK.format(name)
        before, found, rest = text.partition(start)
        _, ended, after = rest.partition(_END)
        if not found or not ended:
            raise ValueError(f"{page}: expected {start} and, after it, {_END}; put them where the table belongs")
        text = f"{before}{start}\n{make()}\n{_END}{after}"
    return text


def main() -> None:
    """Write all pages."""
    for page in SECTIONS:
        path = ROOT / page
        path.write_text(rendered(page, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
