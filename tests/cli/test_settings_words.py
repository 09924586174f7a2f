"""The settings in force, in words."""

import pytest

from fuseboard_streams.cli.settings_words import settings_in_force


def test_defaults_name_every_number_that_decides() -> None:
    found = settings_in_force({})
    assert found is not None
    assert found.origin == "defaults; a worker may differ"
    assert dict(found.pairs) == {
        "trip level A": "10^6, warn 10^4",
        "trip of an actor": "only with 10^5 left without any one of its tools",
        "prior": "Beta(0.72, 12.7)",
        "baseline": "99% quantile of the learned failure rate",
        "floor": "a baseline is never below 0.5%",
        "effective calls": "history counts for at most 500 calls",
        "learning period": "200 calls, one period late",
        "cap": "3 failures per trace and 5 min",
        "cooldown": "30 s, doubling up to 5 min",
        "probes": "10 per wave of 30 s, 40 at most",
    }


def test_a_file_changes_them() -> None:
    found = settings_in_force({"core": {"failure": {"trip": 5e7, "cap": 2}}})
    assert found is not None
    assert found.origin == "as configured here; a worker may differ"
    assert dict(found.pairs)["trip level A"] == "10^7.70, warn 10^4"
    assert dict(found.pairs)["cap"] == "2 failures per trace and 5 min"


def test_a_mistake_in_the_settings_is_shown_in_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEBOARD_BATCH_RECORDS", "many")
    found = settings_in_force({})
    assert found is not None
    assert found.origin.startswith("not known: ")
    assert "batch_records" in found.origin
    assert found.pairs == ()
