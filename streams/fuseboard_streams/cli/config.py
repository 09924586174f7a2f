"""Where settings come from: options, environment, a TOML file; and the connection they add up to."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fuseboard_schemas.brokers import EXPECTED, no_address
from fuseboard_schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

DEFAULT_BOOTSTRAP: Final = "localhost:9092"
DEFAULT_PREFIX: Final = "fuseboard."
SECTIONS: Final = frozenset({"kafka", "registry", "worker", "core"})
"""The tables that a configuration file may have."""
WORKER_SETTINGS: Final = frozenset(
    (
        *("batch_records", "bootstrap", "catch_up_records", "checkpoint_bytes_per_event", "checkpoint_min_bytes"),
        "checkpoint_slice_bytes",
        *("connect_timeout_s", "group", "heartbeat_s", "http", "http_host", "http_port", "idle_after_s"),
        *("idle_wait_ms", "instance_id", "log_format", "log_level", "lookahead", "prefix", "rules"),
        *("session_timeout_ms", "sync_s"),
        *("transaction_timeout_ms", "trim_interval_s", "until_end", "worker_id"),
    )
)
"""What a worker reads at the top of the file, which all commands share; named here because its class is not light."""
KAFKA_ENV: Final = "FUSEBOARD_KAFKA__"
_POSITION: Final = re.compile(r"\(at line (\d+), column (\d+)\)|\(at end of document\)")
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach Kafka: everything a client of ours needs to be made.

    ``kafka`` holds librdkafka settings (TLS, SASL, timeouts) as given; they win over what a command sets itself.
    """

    bootstrap: str = DEFAULT_BOOTSTRAP
    prefix: str = DEFAULT_PREFIX
    kafka: Mapping[str, str] = field(default_factory=dict)
    registry: Mapping[str, str] = field(default_factory=dict)

    def client_settings(self) -> dict[str, Any]:
        """Return the librdkafka settings that every client of this connection starts from."""
        return {"bootstrap.servers": self.bootstrap, "client.id": "fuseboard-cli", **self.kafka}


def load_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        ConfigurationError: The file cannot be read or is no TOML; with line and column.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{path}: the configuration file cannot be read ({error.strerror}). Check the path given with --config "
            "or in FUSEBOARD_CONFIG."
        ) from error
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: byte {error.start} is not UTF-8. A TOML file is UTF-8 text.") from error
    except tomllib.TOMLDecodeError as error:
        found = _POSITION.search(str(error))
        where = f":{found[1]}:{found[2]}" if found and found[1] else ""
        what = _POSITION.sub("", str(error)).strip()
        raise ConfigurationError(
            f"{path}{where}: not valid TOML: {what}. Write `key = value` lines and [section] headings, e.g. "
            'bootstrap = "localhost:9092".'
        ) from error


def unknown_setting(key: str, known: Iterable[str], path: Path) -> ConfigurationError:
    """Return the error for a key of a configuration file that nothing would read."""
    close = difflib.get_close_matches(key, sorted(known), 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return ConfigurationError(
        f"{path}: there is no setting {key!r}.{hint} At the top of the file stand bootstrap, prefix, the worker's "
        f"settings and other options by their names; its sections are {', '.join(f'[{s}]' for s in sorted(SECTIONS))}."
    )


def flatten(table: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return a TOML table of client settings with dotted keys and string values.

    ``security.protocol = "SSL"`` and ``"security.protocol" = "SSL"`` mean the same, as Kafka's names have dots.

    Raises:
        ConfigurationError: A value is a list or a date.
    """
    flat: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{rest}": text for rest, text in flatten(value, f"{where}.{key}").items()})
        elif isinstance(value, bool):
            flat[key] = "true" if value else "false"
        elif isinstance(value, str | int | float):
            flat[key] = str(value)
        else:
            raise ConfigurationError(
                f"{where}.{key}: {type(value).__name__} found where text or a number was expected. librdkafka takes "
                'lists as one string with commas, e.g. "a,b".'
            )
    return flat


def kafka_from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the librdkafka settings in the environment: ``FUSEBOARD_KAFKA__SECURITY_PROTOCOL`` and the like."""
    return {
        name.removeprefix(KAFKA_ENV).lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith(KAFKA_ENV)
    }


def registry_from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the registry client's settings in the environment: ``FUSEBOARD_REGISTRY__URL`` and the like."""
    start = "FUSEBOARD_REGISTRY__"
    return {
        name.removeprefix(start).lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith(start)
    }


def parse_pairs(pairs: tuple[str, ...], option: str) -> dict[str, str]:
    """Return ``key=value`` arguments as a dict.

    Raises:
        ConfigurationError: An argument has no ``=`` or no key.
    """
    result = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigurationError(
                f"{option} {key!r}: expected key=value, e.g. {option} security.protocol=SSL. Put quotes around it if "
                "the value has blanks."
            )
        result[key.strip()] = value
    return result


def connect(
    bootstrap: str,
    prefix: str,
    pairs: tuple[str, ...],
    file: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
) -> Connection:
    """Return the connection that options, environment and file add up to (the earlier of them wins).

    Args:
        bootstrap: Brokers as ``host:port,…``, already chosen among option, environment and file.
        prefix: The topic prefix, chosen likewise.
        pairs: The ``-X key=value`` arguments.
        file: The content of the configuration file; empty without one.
        environment: The process's environment by default.

    Raises:
        ConfigurationError: Something in them is malformed.
    """
    environment = os.environ if environment is None else environment
    check_bootstrap(bootstrap, "--bootstrap")
    if not _PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            f"--prefix {prefix!r}: a topic name may have letters, digits, '.', '_' and '-' only. "
            f"The default is {DEFAULT_PREFIX!r}."
        )
    kafka = section(file, "kafka") | kafka_from_environment(environment) | parse_pairs(pairs, "-X")
    if "bootstrap.servers" in kafka:
        # Clients prefer it, so messages must name it too.
        bootstrap = kafka["bootstrap.servers"]
        check_bootstrap(bootstrap, "bootstrap.servers")
    registry = section(file, "registry") | registry_from_environment(environment)
    return Connection(bootstrap.strip(), prefix, kafka, registry)


def check_bootstrap(text: str, option: str) -> None:
    """Check the addresses of brokers, which librdkafka does not: it looks for a host of any name, for ever.

    Args:
        text: ``host:port,…``; a port may be left out, and a protocol may stand in front, as librdkafka has it.
        option: What to call it in messages.

    Raises:
        ConfigurationError: There is none, or one is malformed.
    """
    brokers = [part.strip() for part in text.split(",") if part.strip()]
    if not brokers:
        raise ConfigurationError(f"{option}: no broker given. Expected host:port, e.g. {DEFAULT_BOOTSTRAP}.")
    wrong = no_address(text)
    if wrong is not None:
        raise ConfigurationError(f"{option} {text!r}: {wrong!r} is no broker's address. Expected {EXPECTED}.")


def section(file: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return one section of client settings of the configuration file, flattened.

    Raises:
        ConfigurationError: The section is no table.
    """
    table = file.get(name, {})
    if not isinstance(table, dict):
        raise ConfigurationError(f"[{name}] in the configuration file: a table was expected, found {table!r}.")
    return flatten(table, name)
