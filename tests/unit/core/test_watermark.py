"""Until when an owner has heard everything."""

from __future__ import annotations

from fuseboard_streams.core.watermark import GRACE_US, Watermark


def test_a_second_is_complete_when_every_shard_has_passed_it() -> None:
    watermark = Watermark(3)
    assert watermark.hear(0, 10, 0) == 0
    assert watermark.hear(1, 12, 1) == 0
    assert watermark.hear(2, 11, 2) == 10
    assert watermark.hear(0, 13, 3) == 11


def test_who_is_silent_is_waited_for_by_the_broker_s_clock() -> None:
    watermark = Watermark(2)
    assert watermark.hear(0, 10, 0) == 0
    assert watermark.hear(0, 11, GRACE_US - 1) == 0
    assert watermark.hear(0, 0, GRACE_US) == 10
    assert watermark.hear(0, 0, 2 * GRACE_US) == 11


def test_a_shard_far_behind_is_waited_for_as_long_as_any_other() -> None:
    """However far its events are apart from the others': both catch up."""
    watermark = Watermark(2)
    assert watermark.hear(0, 5_000, 0) == 0
    assert watermark.hear(1, 100, GRACE_US // 2) == 100
    assert watermark.hear(1, 5_000, GRACE_US // 2) == 5_000


def test_it_never_falls_and_arrivals_out_of_order_do_not_harm() -> None:
    watermark = Watermark(1)
    assert watermark.hear(0, 10, 100) == 10
    assert watermark.hear(0, 7, 50) == 10


def test_what_is_saved_is_everything() -> None:
    watermark, again = Watermark(2), Watermark(2)
    for shard, passed, arrival in ((0, 10, 0), (0, 11, 5), (1, 4, 6)):
        watermark.hear(shard, passed, arrival)
    again.restore(watermark.saved())
    assert again.saved() == watermark.saved()
    assert again.hear(0, 0, GRACE_US + 5) == watermark.hear(0, 0, GRACE_US + 5) == 11
