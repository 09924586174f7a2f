"""Before anything else: is there a broker, are the topics there, are they what they should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuseboard_schemas.errors import ConfigurationError, FuseboardError
from fuseboard_streams.admin import Admin, ChangeKind, differences, observe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fuseboard_schemas.topics import TopicNames
    from fuseboard_streams.worker.clients import Clients


def check_topics(
    clients: Clients,
    names: TopicNames,
    needed: Sequence[str],
    timeout_s: float,
    warn: Callable[[str, str], None],
) -> int:
    """The partition count that all the topics have.

    Args:
        clients: Has the connection's settings.
        names: Full topic names.
        needed: Names without the prefix.
        timeout_s: How long the brokers may take to answer.
        warn: Told each topic with a setting that is not as declared, and what it is: without ``LogAppendTime`` an
            event arrives when its producer says, and with a retention time the state log loses what is needed.

    Raises:
        UnreachableError: No broker answers.
        ConfigurationError: The broker refuses us, a topic is missing, or the counts differ.
    """
    settings = {key: value for key, value in clients.base.items() if key != "error_cb"}
    admin = Admin(settings, timeout_s)
    found = admin.metadata().topics
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
    for topic, detail in _differing_settings(admin, names):
        if topic in counts:
            warn(topic, detail)
    return counts[full[0]]


def _differing_settings(admin: Admin, names: TopicNames) -> list[tuple[str, str]]:
    try:
        changes = differences(names, observe(admin, names))
    except (FuseboardError, TimeoutError):
        # A worker need not be allowed to look at settings; `fuseboard doctor` tells whoever is.
        return []
    return [(each.topic, each.detail) for each in changes if each.kind is ChangeKind.CONFIG]
