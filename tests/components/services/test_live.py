"""The beat of the live feed."""

from __future__ import annotations

import pytest

from services.dashboard.live import EVERY_S, next_beat


@pytest.mark.parametrize(
    ("took", "beats"), [(0.0, 1), (0.4, 1), (1.0, 1), (1.2, 2), (2.0, 2), (7.5, 8)], ids=str
)
def test_a_slow_reading_leaves_beats_out_and_does_not_shift_them(took, beats):
    assert next_beat(40.0, 40.0 + took * EVERY_S) == 40.0 + beats * EVERY_S
