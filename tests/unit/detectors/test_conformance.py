"""What every detector promises: the same again, however it is cut, through bytes and back, in bounded state."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fuseboard_detectors
from fuseboard_streams.core.tables import Column
from tests.unit.detectors.detector_cases import CASES, KEYS, Case, draw, run

every_detector = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
LIBRARIES = {"segments", "rings", "arithmetic", "beta", "breadth", "probes"}
"""Modules without a state of keys. `probes` has one test of one target; its own tests are with the breakers."""


def as_bytes(state: Any) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """What a table stores of a state: fixed-width columns, little-endian."""
    stored = {}
    for f in fields(state):
        values: np.ndarray[Any, Any] = getattr(state, f.name)
        column = Column(f.name, values.dtype, 1 if values.ndim == 1 else values.shape[1])
        stored[f.name] = (column.dtype.str, values.shape, values.astype(column.dtype).tobytes())
    return stored


def from_bytes(kind: type, stored: dict[str, tuple[str, tuple[int, ...], bytes]]) -> Any:
    arrays = {
        name: np.frombuffer(data, np.dtype(dtype)).reshape(shape).copy()
        for name, (dtype, shape, data) in stored.items()
    }
    return kind(**arrays)


def test_every_detector_is_in_the_table() -> None:
    modules = {info.name for info in pkgutil.iter_modules(fuseboard_detectors.__path__)}
    assert modules - LIBRARIES == {case.name for case in CASES}
    for name in LIBRARIES:
        module = importlib.import_module(f"fuseboard_detectors.{name}")
        own = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__]
        assert not [c for c in own if is_dataclass(c) and hasattr(c, "fresh")], name


@every_detector
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 700), max_size=8))
def test_cuts_do_not_show(case: Case, seed: int, cuts: list[int]) -> None:
    stream = draw(seed)
    inside = sorted(cut for cut in cuts if cut <= len(stream))
    whole, cut = case.fresh(), case.fresh()
    assert run(case, whole, stream, []) == run(case, cut, stream, inside)
    assert as_bytes(whole) == as_bytes(cut)


@every_detector
def test_one_event_at_a_time_is_the_same_as_all_at_once(case: Case) -> None:
    stream = draw(1, 200)
    whole, single = case.fresh(), case.fresh()
    assert run(case, whole, stream, []) == run(case, single, stream, list(range(1, len(stream))))
    assert as_bytes(whole) == as_bytes(single)


@every_detector
@pytest.mark.parametrize("seed", range(3))
def test_the_same_again(case: Case, seed: int) -> None:
    first, second = case.fresh(), case.fresh()
    assert run(case, first, draw(seed), []) == run(case, second, draw(seed), [])
    assert as_bytes(first) == as_bytes(second)


@every_detector
def test_a_state_goes_on_after_it_was_bytes(case: Case) -> None:
    stream = draw(2)
    ticks = np.flatnonzero(stream.key < 0)
    half = int(ticks[len(ticks) // 2])
    early, late = stream.part(slice(0, half)), stream.part(slice(half, None))
    kept = case.fresh()
    run(case, kept, early, [])
    restored = from_bytes(type(kept), as_bytes(kept))
    assert run(case, kept, late, []) == run(case, restored, late, [])
    assert as_bytes(kept) == as_bytes(restored)


@every_detector
def test_a_key_is_a_fixed_number_of_bytes(case: Case) -> None:
    """The same before and after, whatever came."""
    state = case.fresh()
    for seed in (None, 3, 4):
        if seed is not None:
            run(case, state, draw(seed), [])
        arrays = [getattr(state, f.name) for f in fields(state)]
        rows = len(arrays[0])
        assert all(len(values) == rows and values.ndim <= 2 for values in arrays)
        assert sum(values.nbytes for values in arrays) == rows * case.state_bytes


@pytest.mark.parametrize("case", [case for case in CASES if case.keyed], ids=lambda case: case.name)
def test_keys_do_not_touch_each_other(case: Case) -> None:
    """A key's events alone, with all ticks, bring its row to the same bits."""
    stream = draw(5)
    together = case.fresh()
    run(case, together, stream, [])
    for key in range(KEYS):
        alone = case.fresh()
        run(case, alone, stream.part((stream.key == key) | (stream.key < 0)), [])
        for f in fields(together):
            if f.name != "newest":
                assert getattr(alone, f.name)[key].tobytes() == getattr(together, f.name)[key].tobytes(), f.name


@every_detector
def test_the_streams_have_something_to_find(case: Case) -> None:
    """Outputs of a test that never change would prove nothing."""
    found = [run(case, case.fresh(), draw(seed), []) for seed in range(4)]
    assert len({str(outputs) for outputs in found}) > 1
    assert any(len({str(each) for each in outputs}) > 2 or case.at_tick is None for outputs in found)
    assert any(len({str(each) for each in outputs}) > 1 for outputs in found)
