"""Laws of envs/memory_corridor.py."""

from __future__ import annotations

import numpy as np
import pytest

from envs import memory_corridor
from envs.memory_corridor import CORRIDOR, FORK, FORWARD


def test_cue_is_seen_only_in_the_first_cell_and_decides_what_the_fork_earns():
    env = memory_corridor.Config(num_envs=64, length=3).make()
    cue = env.reset(0).observation
    assert set(cue) == {0, 1}
    forward = np.full(64, FORWARD)
    for seen in (CORRIDOR, CORRIDOR, FORK):
        step = env.step(forward)
        assert (step.observation == seen).all()
        assert not step.done.any()
    assert not env.step(forward).done.any()  # there is no further forward
    left = np.arange(64) % 2
    step = env.step(left)
    assert step.terminated.all()
    assert (step.reward[:, 0] == (left == cue)).all()
    step = env.step(left)
    assert set(step.observation) == {0, 1}
    assert not step.reward.any()
    assert (step.observation != cue).any()


def test_turning_in_the_corridor_does_nothing_but_take_time():
    env = memory_corridor.Config(num_envs=2, length=3, max_steps=4).make()
    cue = env.reset(0).observation
    for time in range(1, 5):
        step = env.step(np.array([0, 1]))
        assert (step.observation == cue).all()
        assert (step.truncated == (time == 4)).all()
    assert (step.discount == 1).all()


@pytest.mark.parametrize("length", [1, 5])
def test_without_memory_the_fork_earns_half_on_the_mean(length):
    env = memory_corridor.Config(num_envs=1000, length=length).make()
    env.reset(3)
    for _ in range(length):
        env.step(np.full(1000, FORWARD))
    assert abs(env.step(np.zeros(1000, np.int64)).reward.mean() - 0.5) < 0.1
