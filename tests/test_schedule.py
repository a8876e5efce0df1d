"""Laws of rlplay/schedule.py."""

import pytest
import torch

from rlplay.schedule import Decay, Linear


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


@pytest.mark.parametrize("name", ["constant", "cosine", "step"])
def test_decay_warms_up_in_a_straight_line(name):
    decay = Decay(name, warmup=0.2)
    assert decay(0) == 0
    assert decay(0.1) == pytest.approx(0.5)
    assert decay(0.2) == pytest.approx(1)
    assert Decay(name)(0) == 1


def test_decay_follows_its_curve():
    assert [Decay("cosine")(x) for x in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert Decay("cosine", warmup=0.2)(0.6) == pytest.approx(0.5)
    steps = Decay("step", drops=(0.5, 0.75), factor=0.1)
    assert [steps(x) for x in (0.49, 0.5, 0.74, 0.75, 1)] == pytest.approx(
        [1, 0.1, 0.1, 0.01, 0.01]
    )
    assert {Decay()(x) for x in (0, 0.3, 1)} == {1}


@pytest.mark.parametrize("epochs", [3, 10])
def test_cosine_decay_is_that_of_torch(epochs):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        assert Decay("cosine")(epoch / epochs) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
