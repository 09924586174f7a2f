"""The detection and recovery settings that no rules file says, as they are here, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fuseboard_schemas.errors import ConfigurationError
from fuseboard_streams.cli.render.breakers import Settings
from fuseboard_streams.cli.render.text import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fuseboard_streams.core.settings import CoreSettings


def describe(core: CoreSettings, origin: str) -> Settings:
    """Return the core's settings as (name, value) pairs in words.

    Args:
        core: The settings of the worker.
        origin: Where they come from, for the heading.
    """
    failure, breaker = core.failure, core.breaker
    pairs = [
        ("trip of an actor", f"only if 1/{failure.explained:g} of the level is left without any one of its tools"),
        ("prior", f"Beta({failure.prior_alpha:g}, {failure.prior_beta:g})"),
        ("effective calls", f"history counts for at most {failure.effective:,} calls"),
        ("learning period", f"{failure.period:,} calls, one period late"),
        ("failures of a trace", f"are counted for {duration(failure.cap_window_us)} from the first of them"),
        ("probes", f"waves of {duration(breaker.wave_us)}, {breaker.max_probes} results at most"),
    ]
    pairs += [(f"prior of {p.tenant}/{p.tool}", f"Beta({p.alpha:g}, {p.beta:g})") for p in core.priors]
    return Settings(origin, tuple(pairs))


def settings_in_force(file: Mapping[str, Any]) -> Settings | None:
    """Return the settings that a worker has which is started with this file and environment.

    Args:
        file: The content of the configuration file; empty without one.

    Returns:
        ``None`` without the extra ``worker``, which knows them.
    """
    try:
        from fuseboard_streams.core.settings import CoreSettings
        from fuseboard_streams.worker.settings import load_settings
    except ModuleNotFoundError:
        return None
    try:
        core = load_settings(file).core
    except ConfigurationError as error:
        # The state of a breaker matters more than a mistake in a worker's settings, which is shown in its place.
        return Settings(f"not known: {error}", ())
    origin = "defaults" if core == CoreSettings() else "as configured here"
    return describe(core, f"{origin}; a worker may differ")
