"""The documents say what is there: links, files, tests, commands, settings, snippets."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from fuseboard_schemas.records import DeadLetterReason
from fuseboard_streams.cli.app import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = ("sdk", "schemas", "detectors", "streams", "tests", "benchmarks", "examples", "docs", "ops")
KINDS = {".py", ".yaml", ".toml", ".md", ".json"}
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def _pages() -> list[Path]:
    return [ROOT / name for name in PAGES] + sorted((ROOT / "docs").rglob("*.md"))


def _read(path: Path | str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _blocks(path: Path | str, language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(_read(path)) if kind == language]


def _anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", _read(path)), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.strip().replace(" ", "-") for title in plain}


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", _read(page))):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


# ------------------------------------------------------------------- README


def test_the_six_lines_are_the_examples() -> None:
    shown = _blocks("README.md", "python")[0]
    example = _read("examples/six_lines.py")
    docstring = ast.get_docstring(ast.parse(example), clean=False)
    assert docstring is not None
    assert shown.strip() == example.replace(f'"""{docstring}"""', "").strip()


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_the_documents_compiles(page: Path) -> None:
    for number, snippet in enumerate(_blocks(page, "python")):
        compile(snippet, f"{page.name}, snippet {number}", "exec")


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_documents_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", _read("Makefile"), re.MULTILINE))
    console = "\n".join(_blocks(page, "console"))
    made = re.findall(r"^\$ make ([a-z ]+?)(?:\s{2,}| *#|$| [A-Z])", console, re.MULTILINE)
    assert {target for line in made for target in line.split()} <= targets
    called = re.findall(r"(?:^\$ |`)fuseboard ([a-z]+)", console + "\n" + _read(page), re.MULTILINE)
    assert set(called) <= set(COMMANDS)


def test_the_readme_names_the_two_commands() -> None:
    console = "\n".join(_blocks("README.md", "console"))
    assert "$ make demo" in console
    assert "$ make test" in console


# ------------------------------------------------------------- ARCHITECTURE


def _file_map() -> set[str]:
    """The paths in the file map: the files in each folder's table, and the folders of the last one."""
    section = _read("ARCHITECTURE.md").partition("## File map")[2]
    folder, found = "", set()
    for line in section.splitlines():
        if heading := re.match(r"### `(.+/)`", line):
            folder = heading[1]
        elif line.startswith("### "):
            folder = ""
        elif entry := re.match(r"\| `([^`]+)` \|", line):
            found.add(folder + entry[1])
    return found


def test_every_file_of_the_file_map_exists() -> None:
    assert [name for name in sorted(_file_map()) if not (ROOT / name).exists()] == []


def test_every_module_is_in_the_file_map() -> None:
    packages = ("sdk/fuseboard", "schemas/fuseboard_schemas", "detectors/fuseboard_detectors", "streams")
    modules = {
        str(path.relative_to(ROOT))
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert len(modules) > 100
    assert modules - _file_map() == set(), "run docs/generate.py"


def test_the_tests_of_the_invariants_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", _read("ARCHITECTURE.md"))
    assert len(named) > 40
    missing = []
    for file, name in named:
        path = ROOT / file
        tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assigned = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        if name not in functions | assigned:
            missing.append(f"{file}::{name}")
    assert missing == []


def test_every_invariant_names_a_test() -> None:
    section = _read("ARCHITECTURE.md").partition("## Invariants")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 15
    assert [row for row in rows if "::" not in row] == []


def test_files_named_in_the_text_exist() -> None:
    """A file in backticks is one of the project's, by its path or, where it can be no other, by its name."""
    files = [path for folder in CODE for path in (ROOT / folder).rglob("*") if path.suffix in KINDS]
    names = {path.name for path in files} | {path.name for path in ROOT.iterdir()}
    paths = {str(path.relative_to(ROOT)) for path in files}
    ends = {"/".join(path.parts[-2:]) for path in files}
    missing = [
        f"{page.name}: {name}"
        for page in _pages()
        for name in re.findall(r"`([\w./]+\.(?:py|yaml|toml|md|json))`", _read(page))
        if name not in names | paths | ends
    ]
    assert missing == []


# ------------------------------------------------------------ generated parts


@pytest.mark.parametrize("page", ["docs/configuration.md", "docs/topics.md", "docs/rules.md", "docs/metrics.md"])
def test_generated_tables_are_those_of_the_code(page: str) -> None:
    text = _read(page)
    assert _generator().rendered(page, text) == text, "run docs/generate.py"


def test_a_changed_default_is_noticed() -> None:
    text = _read("docs/configuration.md").replace("| `20_000` |", "| `30_000` |")
    assert text != _read("docs/configuration.md")
    assert _generator().rendered("docs/configuration.md", text) != text


def _exposed() -> dict[str, set[str]]:
    """Every series that a busy worker exposes, with its labels, as Prometheus reads them."""
    from prometheus_client.parser import text_string_to_metric_families

    from fuseboard_streams.worker.metrics import ShardFacts, WorkerMetrics

    metrics = WorkerMetrics("1", "w", "g")
    metrics.shards[0] = ShardFacts("ready", keys={"tools": 1})
    for labelled in (metrics.records, metrics.dead_letters, metrics.transactions, metrics.stages, metrics.transitions):
        labelled.labels(*("x" for _ in labelled._labelnames)).inc()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return {name: names for name, names in found.items() if name.startswith("fuseboard_")}


def test_the_table_of_metrics_is_what_prometheus_reads() -> None:
    shown = {
        name: set(re.findall(r"`(\w+)`", labels))
        for name, labels in re.findall(
            r"^\| `(fuseboard_\w+)` \| \w+ \| \w+ \| (.*?) \|", _read("docs/metrics.md"), re.MULTILINE
        )
    }
    exposed = {
        name: labels for name, labels in _exposed().items() if not name.endswith(("_created", "_bucket", "_sum"))
    }
    exposed["fuseboard_transaction_seconds"] = exposed.pop("fuseboard_transaction_seconds_count")
    assert shown == exposed


def test_alerts_use_metrics_and_labels_that_there_are() -> None:
    exposed = _exposed()
    alerts = _read("docs/metrics.md").partition("## What is worth an alert")[2]
    used = re.findall(r"\b(fuseboard_\w+)(?:\{(\w+)=)?", alerts)
    assert len(used) > 8
    assert [
        (name, label) for name, label in used if name not in exposed or (label and label not in exposed[name])
    ] == []


def test_every_reason_of_a_dead_letter_is_explained() -> None:
    explained = set(re.findall(r"^\| `([A-Z_]+)` \|", _read("docs/topics.md"), re.MULTILINE))
    assert explained == {reason.value for reason in DeadLetterReason} - {"OTHER"}


def test_the_runbook_that_commands_name_is_there() -> None:
    from fuseboard_streams.core.settings import CoreSettings

    settings = CoreSettings()
    assert _read(settings.runbook).startswith(f"# Runbook: {settings.rule}\n")


def test_the_example_file_of_the_configuration_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    import tomllib

    from fuseboard_streams.worker.settings import load_settings

    for name in ("BOOTSTRAP", "GROUP", "PREFIX", "HTTP_HOST", "LOG_FORMAT"):
        monkeypatch.delenv(f"FUSEBOARD_{name}", raising=False)
    settings = load_settings(tomllib.loads(_blocks("docs/configuration.md", "toml")[0]))
    assert settings.kafka["ssl.ca.location"] == "/etc/ssl/kafka-ca.pem"
    assert settings.core.breaker.max_probes == 20
    assert settings.core.priors[0].tool == "book_*"
