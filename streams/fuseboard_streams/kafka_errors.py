"""What Kafka's errors mean to a person, and with which exit code a command ends on them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError

from fuseboard_schemas.errors import ConfigurationError, FuseboardError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

REFUSED: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
        KafkaError._SSL,
    }
)
"""The broker answers and will not have us; waiting does not help."""
FORBIDDEN: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
UNREACHABLE: Final = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._RESOLVE,
        KafkaError._MSG_TIMED_OUT,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.LEADER_NOT_AVAILABLE,
    }
)
UNUSABLE_SETTING: Final = frozenset({KafkaError._INVALID_ARG, KafkaError._CONFLICT, KafkaError._NOT_IMPLEMENTED})
# librdkafka repeats a value in the message about it, and these values must not be seen.
_SECRET_SETTING: Final = re.compile(r"password|secret|pem|token|jaas|oauthbearer\.config")
_STATE: Final = re.compile(r" \(after \d+ms in state \w+\)")
_HINT: Final = "-X key=value, FUSEBOARD_KAFKA__KEY or [kafka] in the --config file"


class BrokerErrors:
    """Collects what librdkafka reports through ``error_cb``: it knows better why a call timed out than the call."""

    def __init__(self) -> None:
        self.last: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Remember an error; one that names its cause wins over "all brokers down"."""
        if self.last is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last = error

    @property
    def refused(self) -> bool:
        """Whether a broker has answered that it will not have us."""
        return self.last is not None and _code(self.last) in REFUSED


def explain(
    error: Exception,
    doing: str,
    settings: Mapping[str, Any],
    seen: KafkaError | None = None,
) -> FuseboardError:
    """One of our errors for one of Kafka's: what, where, what to do, with the right exit code and without secrets.

    Args:
        error: a ``KafkaException``, or anything else that a client raised.
        doing: what was being done, as it ends a sentence: ``while creating the topics``.
        settings: the client's settings; the address is shown, and secret values are taken out of the message.
        seen: what ``error_cb`` saw last.
    """
    own = error.args[0] if error.args and isinstance(error.args[0], KafkaError) else None
    named = [each for each in (seen, own) if each is not None]
    codes = {_code(each) for each in named}
    where = settings.get("bootstrap.servers") or "(no address)"
    said = without_secrets(_STATE.sub("", named[0].str() if named else str(error)), settings).strip().rstrip(".")
    if codes & REFUSED or "SSL handshake failed" in said:
        return ConfigurationError(
            f"Kafka at {where} refused the TLS handshake or the credentials {doing}: {said}. Compare "
            "security.protocol, sasl.mechanism, sasl.username, sasl.password and ssl.ca.location with what the broker "
            f"expects; they are set with {_HINT}."
        )
    if codes & FORBIDDEN:
        return ConfigurationError(
            f"Kafka at {where} does not allow this user to go on {doing}: {said}. Ask for the missing ACL, or use "
            "other credentials."
        )
    if codes & UNREACHABLE:
        return UnreachableError(
            f"Kafka at {where} cannot be reached {doing}: {said}. Check that it runs and that --bootstrap (or "
            "FUSEBOARD_BOOTSTRAP) names an address that this machine can connect to, as must its advertised "
            "listeners; a broker that wants TLS or SASL looks the same until security.protocol is set."
        )
    if codes & UNUSABLE_SETTING:
        return ConfigurationError(f"A setting of the Kafka client cannot be used: {said}. Settings come from {_HINT}.")
    return FuseboardError(f"Kafka at {where} answered with an error {doing}: {said}.")


def without_secrets(text: str, settings: Mapping[str, Any]) -> str:
    """``text`` with the value of every secret setting replaced by asterisks."""
    for name, value in settings.items():
        if isinstance(value, str) and value and _SECRET_SETTING.search(name):
            text = text.replace(value, "********")
    return text


def _code(error: KafkaError) -> int:
    return int(error.code())
