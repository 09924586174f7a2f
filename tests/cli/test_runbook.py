"""The runbook that commands name can be read by whoever has the package alone."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from fuseboard_schemas.runbooks import packaged_name
from fuseboard_streams.cli import runbook_command
from fuseboard_streams.cli.render.breakers import breaker_words
from fuseboard_streams.rules.compile import PACKAGED, compile_rules
from tests.cli.samples import NOW, command
from tests.cli.support import run

ROOT = Path(__file__).parents[2]
SIGNALLED = {"blast-radius"}
"""Those that a signal names, and no rule."""
PAGE = ROOT / "docs" / "runbooks" / "tool-failing.md"


def test_it_is_printed() -> None:
    assert run("runbook").stdout.split() == sorted(path.stem for path in PAGE.parent.glob("*.md"))
    text = PAGE.read_text(encoding="utf-8")
    assert run("runbook", "tool-failing").stdout.strip() == text.strip()
    assert json.loads(run("runbook", "--json").stdout) == run("runbook").stdout.split()
    assert json.loads(run("runbook", "tool-failing", "--json").stdout) == {"name": "tool-failing", "text": text}


def test_every_packaged_rule_names_one_that_is_there() -> None:
    """It is found by the name in the command, from the package alone, and is about that rule."""
    rules = compile_rules(PACKAGED.read_bytes(), "packaged").rules.rules
    named = {rule.rule: rule.base.response.runbook for rule in rules}
    assert named.pop("actor-failing") == named["tool-failing"], "one page is about both"
    assert run("runbook", "actor-failing").stdout == run("runbook", "tool-failing").stdout
    assert len(named) > 10
    for rule, runbook in named.items():
        name = packaged_name(runbook or "")
        assert name == rule
        page = run("runbook", name).stdout
        assert page.startswith(f"# Runbook: {rule}\n")
        for heading in ("Look", "What not to do"):
            assert f"\n## {heading}\n" in page
        assert not set(re.findall(r"--rule (\S+)", page)) - {rule}
    assert set(run("runbook").stdout.split()) == {*named, *SIGNALLED}


def test_what_is_no_rule_has_one_like_the_others() -> None:
    for name in SIGNALLED:
        page = run("runbook", name).stdout
        assert page.startswith(f"# Runbook: {name}\n")
        for heading in ("Look", "How it ends", "What not to do"):
            assert f"\n## {heading}\n" in page
        for line in re.findall(r"^\$ (fuseboard .*)$", page, re.MULTILINE):
            words = shlex.split(line)[1:]
            options = [word for word in words if word.startswith("--")]
            known = run(*words[: 2 if words[0] == "breakers" or words[0] == "actors" else 1], "--help").stdout
            assert not [option for option in options if option not in known], line


def test_the_path_in_a_command_is_a_name_too() -> None:
    assert run("runbook", "docs/runbooks/tool-failing.md").stdout.startswith("# Runbook: tool-failing\n")


def test_what_breakers_show_says_works() -> None:
    (line,) = (line for line in breaker_words(command(), [], None, NOW) if "runbook" in line)
    assert run(*line.split("`")[1].split()[1:]).exit_code == 0


def test_one_that_is_not_there_is_refused_with_those_that_are() -> None:
    result = run("runbook", "nope")
    assert result.exit_code == 2
    there = ", ".join(run("runbook").stdout.split())
    assert f"Those there are: {there}." in " ".join(result.stderr.split())


def test_a_wheel_has_them_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"]["force-include"] == {"docs/runbooks": "fuseboard_streams/runbooks"}
    assert "COPY docs/runbooks docs/runbooks" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    inside, checkout = runbook_command._FOLDERS
    assert (inside.parent.name, inside.name) == ("fuseboard_streams", "runbooks")
    assert checkout == PAGE.parent
    (tmp_path / "own.md").write_text("# Runbook: own\n", encoding="utf-8")
    monkeypatch.setattr(runbook_command, "_FOLDERS", (tmp_path, checkout))
    assert list(runbook_command.runbooks()) == ["own"]
    monkeypatch.setattr(runbook_command, "_FOLDERS", (tmp_path / "nowhere",))
    assert "none in this installation" in run("runbook", "x").stderr
