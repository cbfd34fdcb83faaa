from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.media.sampling import UniformFrames, nearest


def test_moments_are_the_middles_of_equal_parts() -> None:
    assert UniformFrames(4).times_s(8.0).tolist() == [1.0, 3.0, 5.0, 7.0]


@given(st.integers(1, 64), st.floats(0.001, 10_000))
def test_moments_increase_within_the_clip(count: int, duration_s: float) -> None:
    times = UniformFrames(count).times_s(duration_s)
    assert len(times) == count
    assert (np.diff(times) > 0).all()
    assert 0 < times[0] <= times[-1] < duration_s


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), st.lists(st.floats(-5, 105), min_size=1, max_size=10))
def test_no_frame_is_nearer_than_the_chosen_one(frames: list[float], wanted: list[float]) -> None:
    times = np.unique(frames)
    chosen = times[nearest(times, np.array(wanted))]
    assert np.abs(chosen - wanted) == pytest.approx(np.abs(times[:, None] - wanted).min(axis=0))


def test_no_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        UniformFrames(0)
