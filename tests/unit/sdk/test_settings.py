"""Where settings come from, and what is refused."""

from __future__ import annotations

import pytest

from fuseboard import ConfigurationError, Fuseboard, Settings
from fuseboard.settings import check_name


def test_arguments_win_over_the_environment_and_that_over_defaults() -> None:
    environ = {
        "FUSEBOARD_ACTOR": "from_env",
        "FUSEBOARD_TENANT": "acme",
        "FUSEBOARD_STALE_AFTER_S": "3.5",
        "FUSEBOARD_MEMORY_EVENTS": "77",
        "FUSEBOARD_SPOOL_SYNC": "yes",
        "FUSEBOARD_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "FUSEBOARD_KAFKA__LINGER_MS": "9",
    }
    settings = Settings.load(environ, tenant="given", kafka={"linger.ms": 1})
    assert (settings.actor, settings.tenant, settings.bootstrap) == ("from_env", "given", "localhost:9092")
    assert (settings.stale_after_s, settings.memory_events, settings.spool_sync) == (3.5, 77, True)
    assert settings.kafka == {"security.protocol": "SASL_SSL", "linger.ms": 1}


@pytest.mark.parametrize(("text", "enabled"), [("1", False), ("true", False), ("0", True), ("", True)])
def test_disabled(text: str, enabled: bool) -> None:
    assert Settings.load({"FUSEBOARD_ACTOR": "a", "FUSEBOARD_DISABLED": text}).enabled is enabled


@pytest.mark.parametrize(
    ("environ", "given", "says"),
    [
        ({}, {}, "FUSEBOARD_ACTOR"),
        ({"FUSEBOARD_ACTOR": " "}, {}, "actor"),
        ({"FUSEBOARD_ACTOR": "a", "FUSEBOARD_STALE_AFTER_S": "soon"}, {}, "FUSEBOARD_STALE_AFTER_S"),
        ({"FUSEBOARD_ACTOR": "a", "FUSEBOARD_DISABLED": "perhaps"}, {}, "true or false"),
        ({}, {"actor": "a", "stale_after_s": 0}, "stale_after_s"),
        ({}, {"actor": "a", "stale_after_s": "3"}, "stale_after_s is '3'; a number above 0"),
        ({"FUSEBOARD_BOOTSTRAP": ""}, {"actor": "a"}, "bootstrap is ''; host:port"),
        ({}, {"actor": "a", "spool_bytes": 10}, "spool_bytes"),
    ],
)
def test_what_is_refused_is_named(environ: dict[str, str], given: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Settings.load(environ, **given)


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ConfigurationError, match="no setting 'bootstrp'"):
        Fuseboard("a", bootstrp="x")


def test_no_secret_is_shown() -> None:
    settings = Settings(
        actor="a", kafka={"sasl.password": "hunter2", "sasl.username": "me"}, args_hash_key="also secret", enabled=False
    )
    fuse = Fuseboard("a", kafka=settings.kafka, args_hash_key="also secret", enabled=False)
    for text in (repr(settings), repr(fuse), str(settings.kafka_for_display())):
        assert "hunter2" not in text
        assert "also secret" not in text
    assert settings.kafka_for_display() == {"sasl.password": "***", "sasl.username": "me"}


def test_each_cluster_and_prefix_has_its_own_spool(tmp_path: object) -> None:
    def root(bootstrap: str, prefix: str) -> object:
        return Settings(actor="a", bootstrap=bootstrap, prefix=prefix, spool_dir=str(tmp_path)).spool_root()

    assert root("a:1,b:2", "p.") == root("b:2, a:1", "p.")
    assert len({root("a:1", "p."), root("a:2", "p."), root("a:1", "q.")}) == 3
    assert Settings(actor="a", spool_dir="").spool_root() is None


def test_a_name_that_the_worker_would_refuse_is_refused_here() -> None:
    check_name("tool", "x" * 256)
    with pytest.raises(ConfigurationError, match="at most 256"):
        check_name("tool", "é" * 129)
