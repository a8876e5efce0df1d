"""Laws of rlplay/schedule.py."""

import pytest

from rlplay.schedule import Linear


def test_linear_is_exact_at_both_ends_and_stays_there():
    exploration = Linear(1.0, 0.05, 1000)
    assert exploration(0) == exploration(-5) == 1.0
    assert exploration(1000) == exploration(10**9) == 0.05


def test_linear_is_straight_between_its_ends():
    exploration = Linear(1.0, 0.05, 1000)
    assert exploration(500) == pytest.approx(0.525)
    assert exploration(250) - exploration(0) == pytest.approx(exploration(900) - exploration(650))


def test_linear_also_rises():
    importance = Linear(0.4, 1.0, 10)
    assert [importance(step) for step in (0, 5, 10, 20)] == pytest.approx([0.4, 0.7, 1.0, 1.0])
