"""Settings of the SDK: keyword arguments first, then ``FUSEBOARD_`` environment variables, then defaults."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fuseboard.errors import ConfigurationError
from fuseboard_schemas.brokers import EXPECTED, no_address
from fuseboard_schemas.rules import MAX_NAME_BYTES

if TYPE_CHECKING:
    from pathlib import Path

ENV_PREFIX = "FUSEBOARD_"
KAFKA_ENV_PREFIX = "FUSEBOARD_KAFKA__"
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})
_SECRET_WORDS = ("password", "secret", "token", "key.pem", "sasl.oauthbearer.config")
KafkaSettings = Mapping[str, "str | int | float | bool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, with its default.

    Attributes:
        actor: The agent deployment on whose behalf this process acts.
        tenant: The organisation or environment the actor belongs to.
        bootstrap: Kafka bootstrap servers, ``host:port`` separated by commas.
        prefix: Prefix of all topic names.
        kafka: librdkafka settings passed to producer and consumer as they are.
        enabled: False publishes nothing, connects nowhere and admits every call; for tests.
        stale_after_s: Seconds without a heartbeat after which the control plane counts as stale.
        ready_timeout_s: Seconds that a call which would be denied waits for the first catch-up, and in which others may
            pass before it without a warning.
        queue_events: Events waiting for the publisher's thread, beyond which events are lost and counted.
        memory_events: Events held in memory until Kafka has confirmed them.
        memory_bytes: Bytes of those events.
        spool_dir: Directory for events while the broker is away; empty means memory only. None means a folder of this
            user's state (``$XDG_STATE_HOME/fuseboard`` or ``~/.local/state/fuseboard``).
        spool_bytes: Size limit of the spool directory of this bootstrap address and prefix.
        spool_segment_bytes: Size of one spool file.
        spool_after_s: Seconds without a confirmation after which events go to the spool.
        spool_sync: Sync each batch to the disk, not only each complete file.
        linger_s: Seconds that the publisher's thread collects events before it sends them.
        close_timeout_s: Seconds that ``close`` and the end of the process wait for Kafka.
        warning_interval_s: Least seconds between two warnings about one tool and a stale control plane.
        args_hash_key: Secret key of the hash of arguments; by default random per process, so that hashes can be
            compared within one process only.
    """

    actor: str
    tenant: str = "default"
    bootstrap: str = "localhost:9092"
    prefix: str = "fuseboard."
    kafka: KafkaSettings = field(default_factory=dict[str, "str | int | float | bool"], repr=False)
    enabled: bool = True
    stale_after_s: float = 10.0
    ready_timeout_s: float = 2.0
    queue_events: int = 50_000
    memory_events: int = 10_000
    memory_bytes: int = 32 * 1024 * 1024
    spool_dir: str | None = None
    spool_bytes: int = 256 * 1024 * 1024
    spool_segment_bytes: int = 8 * 1024 * 1024
    spool_after_s: float = 5.0
    spool_sync: bool = False
    linger_s: float = 0.005
    close_timeout_s: float = 5.0
    warning_interval_s: float = 60.0
    args_hash_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_name("actor", self.actor)
        check_name("tenant", self.tenant)
        if self.enabled and not self.bootstrap.strip():
            raise ConfigurationError(
                f"The setting bootstrap is {self.bootstrap!r}; host:port was expected, several separated by commas."
            )
        wrong = no_address(self.bootstrap)
        if self.enabled and wrong is not None:
            raise ConfigurationError(f"The setting bootstrap holds {wrong!r}; expected is {EXPECTED}.")
        for name in ("stale_after_s", "queue_events", "memory_events", "memory_bytes", "spool_segment_bytes"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value > 0:
                raise ConfigurationError(f"The setting {name} is {value!r}; a number above 0 was expected.")
        if self.spool_bytes < 2 * self.memory_bytes and self.spool_dir != "":
            raise ConfigurationError(
                f"The setting spool_bytes is {self.spool_bytes}; at least twice memory_bytes ({self.memory_bytes}) was "
                "expected, because the events in memory move to the spool when the broker is away. Raise spool_bytes, "
                "lower memory_bytes, or set spool_dir to an empty string to use no spool."
            )

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **given: Any) -> Settings:  # noqa: ANN401
        """Combine keyword arguments (None means "not given") with the environment.

        Raises:
            ConfigurationError: A value has the wrong form, or no actor is named anywhere.
        """
        environment = os.environ if environ is None else environ
        values = {name: value for name, value in given.items() if value is not None}
        for item in dataclasses.fields(cls):
            variable = ENV_PREFIX + item.name.upper()
            if item.name not in values and item.name != "kafka" and variable in environment:
                values[item.name] = _parse(variable, environment[variable], str(item.type))
        if "enabled" not in values and "FUSEBOARD_DISABLED" in environment:
            values["enabled"] = not _parse_bool("FUSEBOARD_DISABLED", environment["FUSEBOARD_DISABLED"])
        values["kafka"] = {**_kafka_from(environment), **dict(values.get("kafka", {}))}
        if "actor" not in values:
            raise ConfigurationError(
                'No actor is named. Give the agent\'s name, Fuseboard(actor="support_agent"), or set FUSEBOARD_ACTOR.'
            )
        return cls(**values)

    def spool_root(self) -> Path | None:
        """The directory for spools of this address and prefix; None when there is to be no spool."""
        if self.spool_dir == "":
            return None
        import hashlib
        from pathlib import Path

        servers = ",".join(sorted(server.strip() for server in self.bootstrap.split(",")))
        cluster = hashlib.sha256(f"{servers}\0{self.prefix}".encode()).hexdigest()[:16]
        return Path(self.spool_dir or _default_spool_dir()) / cluster

    def kafka_for_display(self) -> dict[str, str]:
        """The librdkafka settings with secrets hidden."""
        return {
            name: "***" if any(word in name for word in _SECRET_WORDS) else str(value)
            for name, value in self.kafka.items()
        }


def _default_spool_dir() -> str:
    import tempfile

    state = os.environ.get("XDG_STATE_HOME")
    if state:
        return os.path.join(state, "fuseboard", "spool")
    home = os.path.expanduser("~")
    if home != "~" and os.path.isdir(home):
        return os.path.join(home, ".local", "state", "fuseboard", "spool")
    return os.path.join(tempfile.gettempdir(), f"fuseboard-{os.getuid() if hasattr(os, 'getuid') else 'spool'}")


def check_name(what: str, value: object) -> None:
    """Refuse what can be no name of an actor, tenant or tool.

    Raises:
        ConfigurationError: It is no string, blank, holds a NUL character or has more than 256 bytes of UTF-8.
    """
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ConfigurationError(f"The {what} is {value!r}; a name that is not empty was expected.")
    # The worker refuses the events of a longer name, so nothing would ever guard it.
    if len(value.encode()) > MAX_NAME_BYTES:
        raise ConfigurationError(
            f"The {what} {value[:40]!r}... has {len(value.encode())} bytes; at most {MAX_NAME_BYTES} are possible."
        )


def _kafka_from(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        variable[len(KAFKA_ENV_PREFIX) :].lower().replace("_", "."): value
        for variable, value in environment.items()
        if variable.startswith(KAFKA_ENV_PREFIX)
    }


def _parse(variable: str, text: str, kind: str) -> str | int | float | bool:
    if kind.startswith("bool"):
        return _parse_bool(variable, text)
    try:
        if kind.startswith("int"):
            return int(text)
        if kind.startswith("float"):
            return float(text)
    except ValueError:
        raise ConfigurationError(f"The environment variable {variable} is {text!r}; a number was expected.") from None
    return text


def _parse_bool(variable: str, text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ConfigurationError(f"The environment variable {variable} is {text!r}; true or false was expected.")
