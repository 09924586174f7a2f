"""What `docs/rules.md` and the packaged file show can be used as it stands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from fuseboard_schemas.axes import axes_of
from fuseboard_schemas.records import Action
from fuseboard_streams.rules.compile import PACKAGED, compile_rules

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_examples_are_right(text: str) -> None:
    assert compile_rules(text.encode(), "docs/rules.md").warnings == ()


def test_the_override_that_the_packaged_file_suggests_is_right() -> None:
    text = PACKAGED.read_text(encoding="utf-8")
    suggested = text[text.index("# overrides:") :]
    with_it = text.replace(suggested, re.sub(r"(?m)^# ?", "", suggested))
    assert with_it != text
    rules = compile_rules(with_it.encode(), "f").rules.rules
    assert [rule.rule for rule in rules if rule.changed] == ["cost-runaway"]


def test_a_wheel_has_the_packaged_file() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    wheel = build["targets"]["wheel"]
    folders = [ROOT / folder for folder in wheel["packages"]]
    assert any(PACKAGED.is_relative_to(folder) for folder in folders)
    # A whole folder is taken, but for what is named here or ignored by git.
    assert "exclude" not in wheel | build
    assert "yaml" not in (ROOT / ".gitignore").read_text(encoding="utf-8")


def test_what_is_said_of_ladders() -> None:
    assert axes_of([Action.READ_ONLY, Action.REQUIRE_APPROVAL]) == axes_of([Action.READ_ONLY])
    assert axes_of([Action.READ_ONLY, Action.FAST_MODEL_ONLY]) != axes_of([Action.READ_ONLY])
