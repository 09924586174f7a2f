"""Which schema a value was written with: the packaged schemas, or a Confluent-compatible schema registry.

Ids of the package's own range always resolve from the package: a registry counts from 1, and an id that means one thing
with a registry and another without would decode to garbage without an error.
"""

from __future__ import annotations

import functools
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

from fuseboard_schemas import catalogue, topics
from fuseboard_schemas.errors import ConfigurationError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fuseboard_schemas.catalogue import Schema
    from fuseboard_schemas.compat import Problem
    from fuseboard_schemas.topics import Topic, TopicNames

COMPATIBILITY = "BACKWARD"
_DEFAULTS: dict[str, Any] = {"timeout": 5, "max.retries": 1, "retries.wait.ms": 200}
_NUMBERS = (
    "timeout",
    "max.retries",
    "retries.wait.ms",
    "retries.max.wait.ms",
    "cache.capacity",
    "cache.latest.ttl.sec",
)
_NOT_FOUND_CODES = (40401, 40402, 40403)
"""Confluent's codes for an unknown subject, version and schema. Any other 404 comes from no registry."""
_MOST_MISSING = 10_000
_LARGEST_ID = 0x7FFF_FFFF
"""Registries count in 32 bits with a sign, and do not answer "not found" but an error to what is no such number."""


@dataclass(frozen=True, slots=True)
class Writer:
    """The schema that an id stands for."""

    schema_id: int
    record: str
    """Name of the record, without the namespace."""
    fingerprint: str
    """:func:`fuseboard_schemas.catalogue.fingerprint` of the schema."""
    schema: Schema = field(repr=False, compare=False)

    @classmethod
    def of(cls, schema_id: int, schema: Schema) -> Writer:
        """The writer behind an id, named after its schema."""
        return cls(schema_id, schema["name"].rpartition(".")[2], catalogue.fingerprint(schema), schema)


class Resolver(Protocol):
    """Finds the schema that a value was written with."""

    def resolve(self, schema_id: int) -> Writer | None:
        """The writer's schema, or None if nobody knows the id.

        Raises:
            UnreachableError: The registry could not be asked, so nothing is known about the id; try again later.
        """


@functools.lru_cache(maxsize=1024)
def packaged_writer(schema_id: int) -> Writer | None:
    """The packaged schema with an id, or None."""
    release = catalogue.by_id(schema_id)
    return None if release is None else Writer.of(schema_id, release.schema)


class PackagedResolver:
    """Knows the released schemas of this package, and nothing else."""

    def resolve(self, schema_id: int) -> Writer | None:
        """The released schema with an id, or None."""
        return packaged_writer(schema_id)


class Registry:
    """A schema registry with Confluent's API. Thread-safe."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            config: Settings of confluent-kafka's ``SchemaRegistryClient``, with dots: ``url`` and whatever is needed of
                ``basic.auth.user.info``, ``bearer.auth.*``, ``ssl.*``, ``proxy``, ``timeout``. They are passed through.

        Raises:
            ConfigurationError: The extra ``registry`` is not installed, or a setting is wrong.
        """
        settings = {**_DEFAULTS, **config}
        self._secret_url = str(settings.get("url", ""))
        self.url = _without_credentials(self._secret_url)
        try:
            from confluent_kafka.schema_registry import SchemaRegistryClient
        except ImportError as error:
            raise ConfigurationError(
                f"The schema registry at {self.url} needs packages that are not installed ({error}): "
                "run `pip install 'fuseboard[registry]'`."
            ) from None
        try:
            settings |= {name: float(settings[name]) for name in _NUMBERS if name in settings}
            self._client = SchemaRegistryClient(settings)
        except (ValueError, TypeError, OSError) as error:
            message = f"The settings of the schema registry at {self.url or '(no url)'} cannot be used: {error}."
            raise ConfigurationError(self._scrub(f"{message} Check FUSEBOARD_REGISTRY__*.")) from None

    def __repr__(self) -> str:
        return f"Registry({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def schema(self, schema_id: int) -> Any | None:  # noqa: ANN401 - confluent-kafka's Schema
        """The registered schema with an id, or None.

        Raises:
            UnreachableError: The registry did not answer, or not as a registry does.
        """
        return self._ask(lambda: self._client.get_schema(schema_id))

    def latest(self, subject: str) -> tuple[int, int, Schema] | None:
        """Id, version and schema of the newest version of a subject, or None.

        Raises:
            UnreachableError: The registry did not answer, or not as a registry does.
        """
        found = self._ask(lambda: self._client.get_latest_version(subject))
        return None if found is None else (found.schema_id, found.version, json.loads(found.schema.schema_str))

    def lookup(self, subject: str, schema: Schema) -> int | None:
        """The id under which a subject has a schema, or None.

        Raises:
            UnreachableError: The registry did not answer, or not as a registry does.
        """
        found = self._ask(lambda: self._client.lookup_schema(subject, _schema(schema)))
        return None if found is None else int(found.schema_id)

    def register(self, subject: str, schema: Schema) -> int:
        """Register a schema with compatibility BACKWARD.

        Returns:
            Its id, the old one if it was registered before.

        Raises:
            RegistryRefusedError: The registry finds the schema incompatible, or refuses for another reason.
            UnreachableError: The registry did not answer, or not as a registry does.
        """
        level = self._require(subject)
        schema_id = self._ask(lambda: self._client.register_schema(subject, _schema(schema)))
        if schema_id is None:
            raise RegistryRefusedError(f"The schema registry at {self.url} does not take the subject {subject}.")
        if level is None:
            self._require(subject)
        return int(schema_id)

    def _require(self, subject: str) -> Any:  # noqa: ANN401 - whatever the registry answers
        """Set a subject's compatibility; None if the registry wants the subject to exist first."""
        return self._ask(lambda: self._client.set_compatibility(subject_name=subject, level=COMPATIBILITY))

    def _ask(self, request: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the request returns
        """The answer to a request, or None if what it asks for does not exist."""
        from confluent_kafka.schema_registry import SchemaRegistryError

        try:
            return request()
        except SchemaRegistryError as error:
            if error.error_code in _NOT_FOUND_CODES:
                return None
            raise _refusal(self.url, error.http_status_code, str(error.error_message)) from None
        except Exception as error:  # the HTTP client's errors are not part of the registry client's interface
            message = f"The schema registry at {self.url} cannot be asked: {type(error).__name__}: {error}. "
            hint = "Check that it runs and that FUSEBOARD_REGISTRY__URL is its address."
            raise UnreachableError(self._scrub(message + hint)) from None

    def _scrub(self, text: str) -> str:
        return text.replace(self._secret_url, self.url) if self._secret_url else text


class RegistryRefusedError(UnreachableError):
    """A schema registry that answers, but not what it was asked for."""


class RegistryResolver:
    """Knows the packaged schemas and those of a registry; remembers both answers and refusals. Thread-safe."""

    def __init__(
        self, registry: Registry, *, missing_ttl_s: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Wrap a registry.

        Args:
            registry: Whom to ask.
            missing_ttl_s: For how many seconds an unknown id is not asked about again.
            clock: Seconds from any fixed moment on.
        """
        self._registry = registry
        self._missing_ttl_s = missing_ttl_s
        self._clock = clock
        self._known: dict[int, Writer] = {}
        self._missing: dict[int, float] = {}

    def __repr__(self) -> str:
        return f"RegistryResolver({self._registry!r})"

    def resolve(self, schema_id: int) -> Writer | None:
        """The schema with an id, or None if neither the package nor the registry knows it.

        Raises:
            UnreachableError: The registry could not be asked.
        """
        if catalogue.is_packaged_id(schema_id):
            return packaged_writer(schema_id)
        if not 0 < schema_id <= _LARGEST_ID:
            return None
        known = self._known.get(schema_id)
        if known is not None:
            return known
        now = self._clock()
        if now < self._missing.get(schema_id, now):
            return None
        found = self._registry.schema(schema_id)
        if found is None:
            if len(self._missing) >= _MOST_MISSING:
                self._missing.clear()
            self._missing[schema_id] = now + self._missing_ttl_s
            return None
        writer = self._known[schema_id] = _writer(schema_id, found)
        return writer


@dataclass(frozen=True, slots=True)
class Registration:
    """Where a registry keeps a record's schema."""

    record: str
    subject: str
    schema_id: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a registry's newest version of a subject stands to the current schema."""

    record: str
    subject: str
    status: str
    """``missing``, ``same``, ``compatible`` (another schema, whose records can be read) or ``incompatible``."""
    schema_id: int | None
    problems: tuple[Problem, ...]


def register_all(registry: Registry, names: TopicNames) -> list[Registration]:
    """Register the current schema of every topic's values; what is registered already stays as it is.

    Raises:
        RegistryRefusedError: The registry finds a schema incompatible with what it has, or refuses otherwise.
        UnreachableError: The registry did not answer.
    """
    made = []
    for topic in topics.TOPICS:
        subject = names.subject(topic)
        made.append(Registration(topic.record, subject, registry.register(subject, catalogue.schema(topic.record))))
    return made


def compare(registry: Registry, names: TopicNames) -> list[Comparison]:
    """Compare the newest version of every subject with the current schema.

    Raises:
        UnreachableError: The registry did not answer.
    """
    return [_compare(registry, topic, names.subject(topic)) for topic in topics.TOPICS]


def _compare(registry: Registry, topic: Topic, subject: str) -> Comparison:
    from fuseboard_schemas.compat import backward_problems

    found = registry.latest(subject)
    if found is None:
        return Comparison(topic.record, subject, "missing", None, ())
    schema_id, _, registered = found
    current = catalogue.schema(topic.record)
    if catalogue.fingerprint(registered) == catalogue.fingerprint(current):
        return Comparison(topic.record, subject, "same", schema_id, ())
    problems = tuple(backward_problems(current, registered))
    return Comparison(topic.record, subject, "incompatible" if problems else "compatible", schema_id, problems)


def _schema(schema: Schema) -> Any:  # noqa: ANN401 - confluent-kafka's Schema
    from confluent_kafka.schema_registry import Schema as RegisteredSchema

    return RegisteredSchema(json.dumps(schema), "AVRO")


def _writer(schema_id: int, found: Any) -> Writer:  # noqa: ANN401 - confluent-kafka's Schema
    """The writer behind a registered schema; one that cannot be any of ours is named after the reason."""
    from fastavro import parse_schema

    if found.schema_type not in (None, "AVRO"):
        return Writer(schema_id, f"not Avro but {found.schema_type}", "", {})
    if found.references:
        return Writer(schema_id, "a schema with references to other subjects", "", {})
    try:
        schema = json.loads(found.schema_str)
        parse_schema(schema)
    except Exception as error:  # fastavro raises whatever the schema leads it to
        return Writer(schema_id, f"no valid Avro schema ({type(error).__name__})", "", {})
    if not isinstance(schema, dict) or schema.get("type") != "record":
        return Writer(schema_id, "not a record", "", {})
    return Writer.of(schema_id, schema)


def _refusal(url: str, status: int, message: str) -> RegistryRefusedError:
    if status in (401, 403):
        return RegistryRefusedError(
            f"The schema registry at {url} refuses the credentials (HTTP {status}: {message}). "
            "Check FUSEBOARD_REGISTRY__BASIC_AUTH_USER_INFO or the bearer settings."
        )
    if status in (409, 422):
        return RegistryRefusedError(f"The schema registry at {url} refuses a schema (HTTP {status}): {message}")
    return RegistryRefusedError(
        f"The schema registry at {url} answers HTTP {status}: {message} "
        "Check that FUSEBOARD_REGISTRY__URL is the address of a Confluent-compatible API."
    )


def _without_credentials(url: str) -> str:
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
