"""What a worker can be told: options of the command line, ``FUSEBOARD_`` environment variables, a TOML file."""

from __future__ import annotations

import os
import secrets
import socket
import tomllib
from dataclasses import fields
from functools import reduce
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.errors import ConfigurationError
from fuseboard_schemas.topics import PREFIX
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.settings import LEAST_FORGET_US, SECOND, CoreSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FORCED: Final = {
    "group.id": "--group",
    "group.instance.id": "--instance-id",
    "client.id": "--worker-id",
    "bootstrap.servers": "--bootstrap",
    "group.protocol": "",
    "partition.assignment.strategy": "",
    "isolation.level": "",
    "enable.auto.commit": "",
    "enable.auto.offset.store": "",
    "auto.offset.reset": "",
    "enable.partition.eof": "",
    "transactional.id": "",
    "enable.idempotence": "",
    "partitioner": "",
}
"""Client settings that exactly-once depends on, and the option that sets one, if there is one."""
_ENV_PREFIX: Final = "FUSEBOARD_"
_CORE_TABLES: Final = {"failure": FailureParams, "breaker": BreakerParams}


def _client_settings(value: Any) -> Any:  # noqa: ANN401 - whatever a file or the environment holds
    """A table of client settings with dotted names and text values; ``SECURITY_PROTOCOL`` is ``security.protocol``."""
    if not isinstance(value, dict):
        return value
    flat: dict[str, str] = {}
    for key, item in value.items():
        name = str(key).lower().replace("_", ".")
        if isinstance(item, dict):
            flat.update({f"{name}.{rest}": text for rest, text in _client_settings(item).items()})
        else:
            flat[name] = str(item).lower() if isinstance(item, bool) else str(item)
    return flat


ClientSettings = Annotated[dict[str, str], BeforeValidator(_client_settings)]


class WorkerSettings(BaseSettings):
    """Settings of one worker process."""

    model_config = SettingsConfigDict(
        env_prefix=_ENV_PREFIX, env_nested_delimiter="__", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    bootstrap: str = "localhost:9092"
    """Kafka brokers as ``host:port,…``."""
    group: str = Field(default="fuseboard", min_length=1)
    """Consumer group; the workers of one group share the partitions."""
    prefix: str = PREFIX
    """What all topic names start with."""
    kafka: ClientSettings = Field(default_factory=dict)
    """librdkafka settings (TLS, SASL, timeouts) for every client."""
    registry: ClientSettings = Field(default_factory=dict)
    """Settings of the schema registry's client; without ``url`` only the packaged schemas are known."""
    worker_id: str = Field(default_factory=lambda: f"{socket.gethostname()}-{secrets.token_hex(3)}")
    """Name in heartbeats, logs and the consumer group."""
    instance_id: str | None = None
    """``group.instance.id``: a restart within the session timeout gets its shards back without a rebalance."""

    rules: str | None = None
    """A rules file that holds instead of the topic ``rules``; it is watched. For development."""

    batch_records: int = Field(default=20_000, ge=1)
    """Records of a micro-batch when caught up."""
    catch_up_records: int = Field(default=100_000, ge=1)
    """Records of a batch when lagging."""
    idle_wait_ms: int = Field(default=50, ge=1, le=1000)
    """How long to wait for a first record before looking at the clock again."""
    lookahead: bool = True
    """Decode the next batch on a second thread while lagging."""
    checkpoint_min_bytes: int = Field(default=2_048, ge=1)
    """How much of the rolling checkpoint each entry of the state log is good for at least ..."""
    checkpoint_bytes_per_event: float = Field(default=24.0, ge=0)
    """... and for each of its events."""
    checkpoint_slice_bytes: int = Field(default=16_384, ge=1)
    """The next slice is written as soon as so much has come together."""
    trim_interval_s: float = Field(default=60.0, gt=0)
    """How often the state log is trimmed below the last complete checkpoint round."""
    idle_after_s: float = Field(default=5.0, gt=0)
    """A shard whose inputs have all been at their end this long follows the wall clock."""
    sync_s: float = Field(default=10.0, gt=0)
    """While a shard catches up, an input waits for another whose records arrived so much earlier."""
    heartbeat_s: float = Field(default=1.0, gt=0)
    """Interval between a shard's heartbeats."""
    transaction_timeout_ms: int = Field(default=60_000, ge=1_000)
    """After this the broker aborts the transaction of a worker that died and has no successor."""
    session_timeout_ms: int = Field(default=6_000, ge=1_000)
    """After this a worker that died loses its shards."""
    connect_timeout_s: float = Field(default=10.0, gt=0)
    """How long the brokers may take to answer at the start."""
    until_end: bool = False
    """Process what is there at the start, then stop."""

    http: bool = True
    """Serve /healthz, /readyz and /metrics."""
    http_host: str = "127.0.0.1"
    """Address to serve them on."""
    http_port: int = Field(default=9464, ge=0, le=65_535)
    """Port to serve them on; 0 picks a free one."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """``auto`` is console on a terminal, JSON elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is logged."""
    core: CoreSettings = Field(default_factory=CoreSettings)
    """Detection, breakers and limits."""

    @field_validator("kafka")
    @classmethod
    def _not_forced(cls, kafka: dict[str, str]) -> dict[str, str]:
        for name, option in _FORCED.items():
            if name in kafka:
                instead = f"use {option} instead" if option else "exactly-once processing depends on it"
                raise ValueError(f"{name} cannot be set for a worker: {instead}; remove it")
        return kafka

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments over environment; :func:`load_settings` puts the file's values beneath both."""
        return (init_settings, env_settings)


def load_settings(
    file: Mapping[str, Any] | Path | None = None, overrides: Mapping[str, Any] | None = None
) -> WorkerSettings:
    """The settings that overrides, environment and file add up to; the earlier of them wins, setting by setting.

    Args:
        file: A TOML file or its content. Worker settings stand at the top or under ``[worker]``, client settings
            under ``[kafka]`` and ``[registry]``, detection and breakers under ``[core]``.
        overrides: From the command line; None values count as not given.

    Raises:
        ConfigurationError: The file cannot be read, or a setting is unknown, has an unusable value, or is what rules
            say; or actors would be forgotten within the hour over which they are counted.
    """
    content = file if file is None or not hasattr(file, "read_bytes") else _read(file)
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        environment = WorkerSettings(**given)
        below = _file_settings(content or {})
        merged = _merge(below, environment.model_dump(include=environment.model_fields_set, exclude={"core"}))
        layers = (below, EnvSettingsSource(WorkerSettings)(), given)
        for layer in layers:
            _expect_known(layer.get("core", {}), CoreSettings, "core")
        merged["core"] = reduce(_overlaid, (layer["core"] for layer in layers if "core" in layer), {})
        settings = WorkerSettings(**merged)
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from None
    _refuse_without_effect(settings.core)
    _refuse_forgetful(settings.core)
    return settings


BY_RULES: Final = {
    "failure": {
        "trip": "test.trip", "warn": "test.warn", "floor": "test.baseline.floor",
        "quantile": "test.baseline.quantile", "known_null": "test.baseline.known",
        "cap": "test.max_failures_per_trace",
    },
    "breaker": {
        "base_cooldown_us": "recovery.cooldown", "max_cooldown_us": "recovery.max_cooldown",
        "probes": "recovery.probes",
    },
    "core": {"rule": "the rule's name", "rules_version": "the file's hash", "runbook": "runbook"},
}  # fmt: skip
"""What a rule says and no setting, by part of the settings: the field of a rules file."""


def _refuse_without_effect(core: CoreSettings) -> None:
    """Refuse what rules decide: whoever raises a level here would believe that it holds."""
    usual = CoreSettings()
    for part, names in BY_RULES.items():
        mine, theirs = (each if part == "core" else getattr(each, part) for each in (core, usual))
        for name, instead in names.items():
            if getattr(mine, name) != getattr(theirs, name):
                table = "core" if part == "core" else f"core.{part}"
                raise ConfigurationError(
                    f"[{table}] {name} has no effect: rules say it ({instead}; see docs/rules.md). Remove it from the "
                    f"settings file, and {_ENV_PREFIX}{table.replace('.', '__').upper()}__{name.upper()}, and apply a "
                    "rules file with `fuseboard rules apply`."
                )


def _refuse_forgetful(core: CoreSettings) -> None:
    """Refuse to forget what is still counted: results would depend on when the checkpoint comes round."""
    if core.forget_after_us < LEAST_FORGET_US:
        raise ConfigurationError(
            f"[core] forget_after_us is {core.forget_after_us} ({core.forget_after_us / SECOND:g} s), expected at "
            f"least {LEAST_FORGET_US} (61 minutes): who was active is counted over the last hour. Raise it in the "
            f"settings file, or as {_ENV_PREFIX}CORE__FORGET_AFTER_US."
        )


def _read(path: Any) -> dict[str, Any]:  # noqa: ANN401 - a path
    try:
        with open(os.fspath(path), "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: the settings file cannot be read ({error.strerror}). Check the path."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}. Correct the line it names.") from None


def _file_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """The worker's settings in a file that other commands use too."""
    known = WorkerSettings.model_fields
    own = content.get("worker", {})
    if not isinstance(own, dict):
        raise ConfigurationError(f"[worker] in the settings file: a table was expected, found {own!r}.")
    unknown = sorted(set(own) - set(known))
    if unknown:
        raise ConfigurationError(
            f"[worker] in the settings file: there is no setting {unknown[0]!r}. Known are: {', '.join(sorted(known))}."
        )
    return {key: value for key, value in {**content, **own}.items() if key in known}


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if key in ("kafka", "registry"):
            merged[key] = {**(_client_settings(merged.get(key, {})) or {}), **value}
        else:
            merged[key] = value
    return merged


def _expect_known(table: Any, settings: type, where: str) -> None:  # noqa: ANN401 - whatever a file holds
    """Refuse a misspelt name: a threshold that was set without effect would be found out at the worst moment."""
    if not isinstance(table, dict):
        return
    known = {each.name: each for each in fields(settings)}
    for name, value in table.items():
        if name not in known:
            raise ConfigurationError(
                f"[{where}]: there is no setting {name!r}; known are: {', '.join(sorted(known))}. Correct the name, in "
                f"the settings file or as {_ENV_PREFIX}{where.replace('.', '__').upper()}__{str(name).upper()}."
            )
        inner = _CORE_TABLES.get(name) if where == "core" else None
        if inner is not None:
            _expect_known(value, inner, f"{where}.{name}")


def _overlaid(below: Any, above: Any) -> Any:  # noqa: ANN401 - tables of any depth, checked afterwards
    """Tables merged key by key; anything else above hides what is below."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return below | {key: _overlaid(below.get(key), value) for key, value in above.items()}


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "settings"
    environment = _ENV_PREFIX + "__".join(str(part) for part in first["loc"]).upper()
    said = str(first["msg"]).removeprefix("Value error, ")
    return (
        f"The worker's setting {where!r} cannot be used: {said}. It comes from an option, the environment variable "
        f"{environment} or the settings file."
    )
