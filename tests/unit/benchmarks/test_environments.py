"""Environments of the peers: why one cannot be made is told apart, since only one reason is the machine's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks._environments import FAUST, QUIX, IndexUnreachable, python_with
from benchmarks._harness import ROOT
from benchmarks._processes import ProcessFailed

if TYPE_CHECKING:
    from pathlib import Path

NOWHERE = "http://127.0.0.1:9/simple"
ONCE = ("--retries", "1", "--timeout", "1")


@pytest.mark.slow
def test_an_index_that_cannot_be_reached_is_told_apart_from_a_package_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSEBOARD_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", NOWHERE)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with pytest.raises(IndexUnreachable, match="connection broken by"):
        python_with("none", ["fuseboard-not-there==1"], patience=ONCE)

    # What failed is tried again the next time.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ProcessFailed, match="No matching distribution") as failure:
        python_with("none", ["fuseboard-not-there==1"], patience=ONCE)
    assert not isinstance(failure.value, IndexUnreachable)


@pytest.mark.parametrize(("script", "packages"), [("faust_judge.py", FAUST), ("quix_judge.py", QUIX)])
def test_the_guests_name_the_versions_they_are_tested_with(script: str, packages: tuple[str, ...]) -> None:
    text = (ROOT / "examples" / "guests" / script).read_text(encoding="utf-8")
    assert f"'{packages[0]}'" in text
