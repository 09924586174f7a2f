"""The project's own rules, checked over its files: sizes, layers, words, and declarations made from one another."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from fuseboard_schemas.topics import PREFIX, TOPICS, declaration

ROOT = Path(__file__).parents[2]
CODE = ("sdk", "schemas", "detectors", "streams", "tests", "benchmarks", "examples")
LONGEST_FILE = 600
LONGEST_FUNCTION = 60
# Spelled in parts, or this file would be the first to be found.
UNWANTED = re.compile(
    "|".join(
        (
            "TO" + "DO\\b",
            "FIX" + "ME\\b",
            "\\bX" + "XX\\b",
            "DESIGN" + "\\.md",
            "STREAM" + "\\.md",
            "\\.\\./shared" + "/",
            "shared" + "/(?:notes|data)",
            "(?<![\\w.])/wo" + "rk/",
            "/tmp/" + "(?:fb|x)/",
            "/ro" + "ot/",
        )
    )
)


def _python_files() -> list[Path]:
    return sorted(path for folder in CODE for path in (ROOT / folder).rglob("*.py") if ".venv" not in path.parts)


def _text_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    kinds = {".py", ".md", ".toml", ".yml", ".yaml", ".avsc", ".java", ".xml", ".sh", ""}
    return [ROOT / name for name in listed if Path(name).suffix in kinds and (ROOT / name).is_file()]


def test_there_is_code_to_check() -> None:
    assert len(_python_files()) > 30
    assert ROOT / "pyproject.toml" in _text_files()


def test_no_file_is_longer_than_600_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in _python_files()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    has_one = ast.get_docstring(node, clean=False) is not None
    return (first.end_lineno or first.lineno) - first.lineno + 1 if has_one else 0


def test_no_function_is_longer_than_60_lines() -> None:
    """Without its docstring: a function is not too long for being explained."""
    found = {}
    for path in _python_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1 - _docstring_lines(node)
                if length > LONGEST_FUNCTION:
                    found[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = length
    assert found == {}


def test_no_unfinished_work_and_nothing_about_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in _text_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if UNWANTED.search(line)
    ]
    assert found == []


def test_the_layers_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_topics_file_for_operators_is_the_code_s_declaration() -> None:
    text = (ROOT / "ops/kafka/topics.yaml").read_text()
    assert text == declaration()
    parsed = yaml.safe_load(text)
    assert parsed["prefix"] == PREFIX
    assert {topic["name"]: topic["config"] for topic in parsed["topics"]} == {t.name: t.config for t in TOPICS}


def test_the_lock_file_names_only_the_public_index() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    sources = {str(package["source"]) for package in lock["package"] if package["name"] != "fuseboard"}
    assert sources == {str({"registry": "https://pypi.org/simple"})}
    urls = [
        file["url"]
        for package in lock["package"]
        for file in [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]
    ]
    assert urls
    assert {url.split("/")[2] for url in urls} == {"files.pythonhosted.org"}


@pytest.mark.parametrize("extra", ["worker", "registry", "demo"])
def test_the_lock_file_has_every_extra(extra: str) -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    (package,) = [each for each in lock["package"] if each["name"] == "fuseboard"]
    assert package["optional-dependencies"][extra]


def test_the_compose_file_waits_for_what_each_service_needs() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert set(services) == {"kafka", "registry", "topics", "schemas", "worker"}
    assert set(services["worker"]["depends_on"]) == {"topics", "schemas"}
    for name, condition in (("kafka", "topics"), ("registry", "schemas")):
        assert "healthcheck" in services[name]
        assert services[condition]["depends_on"][name]["condition"] == "service_healthy"
    # Nothing is open to the network of the machine.
    ports = [str(port) for service in services.values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in ports)
