"""The worker's settings: where they come from and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuseboard_schemas.errors import ConfigurationError
from fuseboard_streams.core.guarding import ACTIVE_S
from fuseboard_streams.core.panes import BREADTH_S, MINUTE_S
from fuseboard_streams.core.settings import CoreSettings
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
    settings = load_settings({"core": {"failure": {"period": 100}, "breaker": {"max_probes": 20}}})
    assert settings.core.failure.period == 100
    assert settings.core.failure.effective == 500
    assert settings.core.breaker.max_probes == 20


@pytest.mark.parametrize(
    ("core", "said"),
    [
        (
            {"failure": {"trip": 1e8}},
            r"\[core.failure\] trip has no effect: rules say it \(test.trip; see docs/rules.md",
        ),
        ({"breaker": {"probes": 4}}, r"\[core.breaker\] probes .* and FUSEBOARD_CORE__BREAKER__PROBES, and apply"),
        ({"runbook": "mine.md"}, r"\[core\] runbook has no effect"),
    ],
)
def test_what_rules_say_is_no_setting(core: dict[str, object], said: str) -> None:
    # It was accepted, and changed nothing.
    with pytest.raises(ConfigurationError, match=said):
        load_settings({"core": core})


def test_what_rules_say_may_stand_there_as_it_is() -> None:
    assert load_settings({"core": {"failure": {"trip": 1e6}}}).core == CoreSettings()


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


def test_what_is_still_counted_is_not_forgotten() -> None:
    least = 61 * 60_000_000
    with pytest.raises(
        ConfigurationError, match=r"forget_after_us is 3659999999 \(3660 s\), expected at least 3660000000"
    ):
        load_settings({"core": {"forget_after_us": least - 1}})
    assert load_settings({"core": {"forget_after_us": least}}).core.forget_after_us == least
    assert least >= (ACTIVE_S + MINUTE_S) * 1_000_000
    assert least >= (BREADTH_S + MINUTE_S) * 1_000_000


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEBOARD_CORE__FAILURE__TRIPP", "5")
    with pytest.raises(ConfigurationError, match="no setting 'tripp'"):
        load_settings()


def test_one_number_from_the_environment_leaves_the_rest_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEBOARD_CORE__FAILURE__EXPLAINED", "20")
    file = {"core": {"failure": {"explained": 5, "effective": 300}, "breaker": {"max_probes": 20}}}
    failure = load_settings(file, {"core": {"failure": {"period": 100}}}).core.failure
    assert (failure.explained, failure.effective, failure.period) == (20, 300, 100)
    assert load_settings(file).core.breaker.max_probes == 20


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
