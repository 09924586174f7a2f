"""What an address of Kafka brokers looks like."""

from __future__ import annotations

import re

_BROKER = re.compile(
    r"((plaintext|ssl|sasl_plaintext|sasl_ssl)://)?(?P<host>\[[\w:.%]+\]|[^\s:/@\[\]'\"]+)(:(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE | re.ASCII,
)
_LAST_PORT = 65_535
EXPECTED = (
    f"host:port with a port from 1 to {_LAST_PORT}, several with commas between them, e.g. localhost:9092 or [::1]:9092"
)
"""The form of an address, for error messages."""


def no_address(servers: str) -> str | None:
    """The first part of ``bootstrap.servers`` that is no address of a broker; None if all are."""
    for broker in filter(None, (part.strip() for part in servers.split(","))):
        found = _BROKER.fullmatch(broker)
        if found is None or not 0 < int(found["port"] or 1) <= _LAST_PORT:
            return broker
    return None
