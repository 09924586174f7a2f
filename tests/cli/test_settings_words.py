"""The settings in force, in words."""

import pytest

from fuseboard_streams.cli.settings_words import settings_in_force


def test_defaults_name_every_number_that_decides() -> None:
    found = settings_in_force({})
    assert found is not None
    assert found.origin == "defaults; a worker may differ"
    assert dict(found.pairs) == {
        "trip of an actor": "only if 1/10 of the level is left without any one of its tools",
        "prior": "Beta(0.72, 12.7)",
        "effective calls": "history counts for at most 500 calls",
        "learning period": "200 calls, one period late",
        "failures of a trace": "are counted for 5 min from the first of them",
        "probes": "waves of 30 s, 40 results at most",
    }


def test_a_file_changes_them() -> None:
    found = settings_in_force({"core": {"failure": {"period": 50, "prior_alpha": 2}}})
    assert found is not None
    assert found.origin == "as configured here; a worker may differ"
    assert dict(found.pairs)["learning period"] == "50 calls, one period late"
    assert dict(found.pairs)["prior"] == "Beta(2, 12.7)"


def test_a_mistake_in_the_settings_is_shown_in_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEBOARD_BATCH_RECORDS", "many")
    found = settings_in_force({})
    assert found is not None
    assert found.origin.startswith("not known: ")
    assert "batch_records" in found.origin
    assert found.pairs == ()
