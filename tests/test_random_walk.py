"""Laws of `envs/random_walk.py`: the values and lengths that the theory gives, and its mistakes."""

from __future__ import annotations

import numpy as np
import pytest
from test_model import uniform, values

from envs.random_walk import Config
from rlplay.core import Mistake
from rlplay.palette import AMBER


@pytest.mark.parametrize("n", [1, 5, 19, 101])
def test_uniform_policy_ends_on_the_right_in_proportion_to_where_it_stands(n):
    model = Config(num_states=n).make().spec.model
    worth = values(model, uniform(model), 1)
    assert np.allclose(worth[1:-1], np.arange(1, n + 1) / (n + 1), atol=1e-12)
    assert worth[[0, -1]].tolist() == [0, 0]


def test_nineteen_states_are_worth_what_example_7_1_says():
    model = Config(num_states=19, left_reward=-1).make().spec.model
    worth = values(model, uniform(model), 1)
    assert np.allclose(worth[1:-1], np.arange(-9, 10) / 10, atol=1e-12)


def test_walk_begins_in_the_middle_and_lasts_as_long_as_a_coins():
    n, num_envs = 5, 4000
    env = Config(num_envs=num_envs, num_states=n).make()
    step, random = env.reset(0), np.random.default_rng(0)
    assert (step.observation == 3).all()
    going, length, earned = np.ones(num_envs, bool), np.zeros(num_envs), np.zeros(num_envs)
    while going.any():
        step = env.step(random.integers(2, size=num_envs))
        length += going
        earned += going * step.reward[:, 0]
        going &= ~step.done
    mean = ((n + 1) / 2) ** 2  # the gambler's ruin: (k)(N - k) steps from k of N
    assert length.mean() == pytest.approx(mean, abs=5 * length.std() / np.sqrt(num_envs))
    assert earned.mean() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(num_envs))
    assert set(earned) == {0, 1}


def test_left_is_left_and_right_is_right():
    env = Config(num_states=3, left_reward=-2, right_reward=7).make()
    assert env.spec.action_names == ("left", "right")
    for action, end, reward in [(0, 0, -2), (1, 4, 7)]:
        env.reset(0)
        step = env.step(np.array([action]))
        assert not step.terminated[0]
        step = env.step(np.array([action]))
        assert (step.observation[0], step.reward[0, 0], step.terminated[0]) == (end, reward, True)


@pytest.mark.parametrize("n", [2, 20])
def test_walk_without_a_middle_is_a_mistake(n):
    with pytest.raises(Mistake, match=f"odd number, not {n}"):
        Config(num_states=n).make()


def test_layout_is_a_row():
    spec = Config(num_states=5).make().spec
    assert spec.layout.cells.tolist() == [[0, 0, i] for i in range(7)]
    assert spec.layout.marks == {3: "S"}
    assert spec.observation_space.n == 7
    assert Config(num_states=19).world == "random-walk-19"


@pytest.mark.parametrize("n", [1, 5, 19])
def test_picture_shows_the_walker_where_it_stands(n):
    env = Config(num_states=n).make(render=True)
    step = env.reset(0)
    for action in [0, 1, 1, 1, 0, 0] * 3:
        picture = env.render()
        column = int((step.observation[0] + 0.5) / (n + 2) * picture.shape[1])
        amber = (np.abs(picture.astype(int) - AMBER).max(2) < 30).any(0)  # [W]
        assert amber[column]
        assert not amber[: max(0, int(column - picture.shape[1] / (n + 2)))].any()
        step = env.step(np.array([action]))
