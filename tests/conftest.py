"""Fixtures of the whole test suite; see tests/support/brokers.py."""

from __future__ import annotations

from tests.support.brokers import (
    apache_kafka,
    apicurio,
    broker,
    embedded,
    own_kafka,
    topics,
    unique_prefix,
)

__all__ = ["apache_kafka", "apicurio", "broker", "embedded", "own_kafka", "topics", "unique_prefix"]
