"""The worker's settings: where they come from and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuseboard_schemas.errors import ConfigurationError
from fuseboard_streams.worker.settings import load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BOOTSTRAP", "GROUP", "PREFIX", "HTTP_PORT"):
        monkeypatch.delenv(f"FUSEBOARD_{name}", raising=False)


def test_overrides_win_over_environment_over_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "fuseboard.toml"
    file.write_text('bootstrap = "file:1"\ngroup = "file"\nprefix = "file."\n[worker]\nhttp_port = 1\n')
    monkeypatch.setenv("FUSEBOARD_GROUP", "environment")
    monkeypatch.setenv("FUSEBOARD_PREFIX", "environment.")

    settings = load_settings(file, {"prefix": "option.", "instance_id": None})

    assert (settings.bootstrap, settings.group, settings.prefix) == ("file:1", "environment", "option.")
    assert settings.http_port == 1
    assert settings.instance_id is None


def test_client_settings_are_merged_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEBOARD_KAFKA__SECURITY_PROTOCOL", "SSL")
    file = {"kafka": {"ssl": {"ca.location": "/ca"}, "security.protocol": "PLAINTEXT", "log.thread.name": True}}

    settings = load_settings(file, {"kafka": {"debug": "cgrp"}})

    assert settings.kafka["debug"] == "cgrp"
    assert settings.kafka["ssl.ca.location"] == "/ca"
    assert settings.kafka["log.thread.name"] == "true"


def test_detection_is_set_in_the_file() -> None:
    settings = load_settings({"core": {"failure": {"trip": 1e8}, "breaker": {"probes": 4}}})
    assert settings.core.failure.trip == 1e8
    assert settings.core.failure.warn == 1e4
    assert settings.core.breaker.probes == 4


@pytest.mark.parametrize(
    ("core", "said"),
    [
        ({"failure": {"tripp": 5}}, r"\[core.failure\]: there is no setting 'tripp'"),
        ({"breaker": {"probe": 5}}, r"FUSEBOARD_CORE__BREAKER__PROBE"),
        ({"failures": {}}, r"\[core\]: there is no setting 'failures'"),
    ],
)
def test_a_misspelt_threshold_is_refused(core: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_settings({"core": core})


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEBOARD_CORE__FAILURE__TRIPP", "5")
    with pytest.raises(ConfigurationError, match="no setting 'tripp'"):
        load_settings()


def test_one_number_from_the_environment_leaves_the_rest_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEBOARD_CORE__FAILURE__TRIP", "1e7")
    file = {"core": {"failure": {"trip": 1e8, "cap": 2}, "breaker": {"probes": 4}}}
    settings = load_settings(file, {"core": {"failure": {"period": 100}}})
    assert (settings.core.failure.trip, settings.core.failure.cap, settings.core.failure.period) == (1e7, 2, 100)
    assert settings.core.breaker.probes == 4


@pytest.mark.parametrize("name", ["isolation.level", "group.id", "auto.offset.reset", "partitioner"])
def test_what_exactly_once_depends_on_cannot_be_set(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        load_settings(None, {"kafka": {name: "x"}})


def test_secrets_do_not_show_in_errors() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, {"kafka": {"sasl.password": "hunter2", "group.id": "x"}})
    assert "hunter2" not in str(caught.value)


def test_an_unknown_setting_and_a_wrong_value_are_named() -> None:
    with pytest.raises(ConfigurationError, match="no setting 'batch'"):
        load_settings({"worker": {"batch": 1}})
    with pytest.raises(ConfigurationError, match="FUSEBOARD_HTTP_PORT"):
        load_settings(None, {"http_port": 70_000})


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_text("bootstrap = ")
    with pytest.raises(ConfigurationError, match=r"broken\.toml: not valid TOML"):
        load_settings(file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_settings(tmp_path / "missing.toml")
