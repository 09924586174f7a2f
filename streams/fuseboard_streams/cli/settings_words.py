"""The detection and recovery settings in force here, for people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fuseboard_schemas.errors import ConfigurationError
from fuseboard_streams.cli.render.breakers import Settings
from fuseboard_streams.cli.render.text import duration, percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fuseboard_streams.core.settings import CoreSettings


def level(value: float) -> str:
    """Return an evidence level as a power of ten when it is one: ``10^6``."""
    log10 = math.log10(value)
    return f"10^{log10:.0f}" if abs(log10 - round(log10)) < 1e-9 else f"10^{log10:.2f}"


def describe(core: CoreSettings, origin: str) -> Settings:
    """Return the core's settings as (name, value) pairs in words.

    Args:
        core: The settings of the worker.
        origin: Where they come from, for the heading.
    """
    failure, breaker = core.failure, core.breaker
    pairs = [
        ("trip level A", f"{level(failure.trip)}, warn {level(failure.warn)}"),
        ("trip of an actor", f"only with {level(failure.unexplained)} left without any one of its tools"),
        ("prior", f"Beta({failure.prior_alpha:g}, {failure.prior_beta:g})"),
        ("baseline", f"{percent(failure.quantile)} quantile of the learned failure rate"),
        ("floor", f"a baseline is never below {percent(failure.floor)}"),
        ("effective calls", f"history counts for at most {failure.effective:,} calls"),
        ("learning period", f"{failure.period:,} calls, one period late"),
        ("cap", f"{failure.cap} failures per trace and {duration(failure.cap_window_us)}"),
        ("cooldown", f"{duration(breaker.base_cooldown_us)}, doubling up to {duration(breaker.max_cooldown_us)}"),
        ("probes", f"{breaker.probes} per wave of {duration(breaker.wave_us)}, {breaker.max_probes} at most"),
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
