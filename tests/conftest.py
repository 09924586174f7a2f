"""Fixtures of the whole test suite (see tests/support/brokers.py) and how hypothesis searches."""

from __future__ import annotations

import signal

from hypothesis import settings

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

# The same examples in every run, and no deadlines: a busy machine must not fail a test. For a random search:
# pytest --hypothesis-profile=explore
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("same")

# Whoever starts the tests in the background makes them and all their children ignore SIGINT, and some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
