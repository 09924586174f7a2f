"""Before anything else: is there a broker, are the topics there, and do their partition counts agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuseboard_schemas.errors import ConfigurationError
from fuseboard_streams.admin import Admin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_schemas.topics import TopicNames
    from fuseboard_streams.worker.clients import Clients


def check_topics(clients: Clients, names: TopicNames, needed: Sequence[str], timeout_s: float) -> int:
    """The partition count that all the topics have.

    Args:
        clients: Has the connection's settings.
        names: Full topic names.
        needed: Names without the prefix.
        timeout_s: How long the brokers may take to answer.

    Raises:
        UnreachableError: No broker answers.
        ConfigurationError: The broker refuses us, a topic is missing, or the counts differ.
    """
    settings = {key: value for key, value in clients.base.items() if key != "error_cb"}
    found = Admin(settings, timeout_s).metadata().topics
    full = [names.prefix + each for each in needed]
    missing = [each for each in full if each not in found or not found[each].partitions]
    if missing:
        raise ConfigurationError(
            f"Missing on the broker: {', '.join(missing)}. Create all topics with `fuseboard topics apply` "
            f"(--prefix {names.prefix}), then start the worker again."
        )
    counts = {each: len(found[each].partitions) for each in full}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise ConfigurationError(
            f"The topics must all have the same number of partitions, because one worker owns the same partition of "
            f"each: {listed}. `fuseboard topics plan` shows what to do; `fuseboard topics apply` creates topics that "
            "agree."
        )
    return counts[full[0]]
