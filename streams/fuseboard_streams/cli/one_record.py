"""One record that a person gives: who that is, and how it is sent and confirmed."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any, Final

import click

from fuseboard_schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError as Error
    from confluent_kafka import Message as KafkaMessage

    from fuseboard.transport import Message
    from fuseboard_streams.cli.config import Connection

TIMEOUT_S: Final = 15.0
"""How long the broker may take to confirm it."""

person_option = click.option(
    "--person",
    metavar="NAME",
    envvar="FUSEBOARD_PERSON",
    show_envvar=True,
    help="Who does this; without it the name under which you are logged in here.",
)


def person_of(given: str | None) -> str:
    """Return the name of whoever gives the record.

    Raises:
        ConfigurationError: It is empty or too long, or nobody is logged in.
    """
    from fuseboard_schemas.rules import MAX_NAME_BYTES

    if given is None:
        try:
            given = getpass.getuser()
        except (KeyError, OSError):
            given = ""
    name = given.strip()
    if not name or len(name.encode()) > MAX_NAME_BYTES:
        raise ConfigurationError(f"--person: expected a name of 1 to {MAX_NAME_BYTES} bytes, to be written down.")
    return name


def send_one(connection: Connection, message: Message) -> int:
    """Send one message to a topic that exists, and return the offset under which the broker confirmed it.

    Raises:
        FuseboardError: It was not confirmed. It may have arrived all the same: look before it is sent again.
    """
    from confluent_kafka import KafkaError, KafkaException, Producer

    from fuseboard_streams.kafka_errors import BrokerErrors, explain

    errors = BrokerErrors()
    settings: dict[str, Any] = {
        "enable.idempotence": True,
        "linger.ms": 0,
        "message.timeout.ms": int(TIMEOUT_S * 1_000),
        **connection.client_settings(),
        "error_cb": errors,
        "log_level": 0,
    }
    found: list[KafkaException | int] = []

    def delivered(error: Error | None, sent: KafkaMessage) -> None:
        offset = sent.offset()
        found.append(KafkaException(error) if error is not None or offset is None else offset)

    try:
        producer = Producer(settings)
        producer.produce(
            message.topic,
            message.value,
            message.key,
            message.partition,
            on_delivery=delivered,
            headers=list(message.headers),
        )
        producer.flush(TIMEOUT_S + 5.0)
        answer = found[0] if found else KafkaException(KafkaError(KafkaError._TIMED_OUT))
        if not isinstance(answer, int):
            raise answer
    except KafkaException as error:
        raise explain(error, f"while sending to {message.topic}", settings, errors.last) from error
    return answer
