"""Laws of `envs/gamblers_problem.py`: bold and timid play, legal stakes, and its mistakes."""

from __future__ import annotations

import numpy as np
import pytest
from test_model import best, values

from envs.gamblers_problem import Config
from rlplay.core import Array, Mistake


def bold(goal: int, heads: float) -> Array:
    """Return how likely it is to reach the goal from each capital when the stake is always as
    large as can be, which is best where heads is at most 1/2 (Dubins & Savage 1965)."""
    equations, right = np.eye(goal + 1), np.zeros(goal + 1)
    right[goal] = 1
    for capital in range(1, goal):
        stake = min(capital, goal - capital)
        equations[capital, capital + stake] -= heads
        equations[capital, capital - stake] -= 1 - heads
    return np.linalg.solve(equations, right)


@pytest.mark.parametrize(("goal", "heads"), [(100, 0.4), (100, 0.25), (64, 0.4), (37, 0.49)])
def test_bold_play_is_best_in_a_losing_game(goal, heads):
    worth = best(Config(goal=goal, heads=heads).make().spec.model, 1, 1e-13)
    assert np.allclose(worth[1:goal], bold(goal, heads)[1:goal], atol=1e-9)


def test_known_values():
    worth = best(Config().make().spec.model, 1)
    assert worth[[25, 50, 75]] == pytest.approx([0.16, 0.4, 0.64], abs=1e-9)


def test_timid_play_is_best_in_a_winning_game():
    """Staking 1 is the classical ruin: (1 - r^s) / (1 - r^goal) with r = tails / heads."""
    model = Config(heads=0.55).make().spec.model
    timid = np.zeros((101, 50))
    timid[:, 0] = 1
    ratio = 0.45 / 0.55
    expected = (1 - ratio ** np.arange(1, 100)) / (1 - ratio**100)
    assert np.allclose(values(model, timid, 1)[1:100], expected, atol=1e-9)
    assert np.allclose(best(model, 1, 1e-13)[1:100], expected, atol=1e-9)
    # Negative control: not in a losing one.
    losing = Config().make().spec.model
    assert values(losing, timid, 1)[50] < best(losing, 1)[50] - 0.1


def test_stakes_are_at_most_what_is_there_and_what_is_missing():
    env = Config(num_envs=500).make()
    step, random = env.reset(0), np.random.default_rng(0)
    most = np.minimum(np.arange(101), 100 - np.arange(101))
    for _ in range(60):
        on = (step.observation > 0) & (step.observation < 100)
        assert np.array_equal(step.action_mask.sum(1)[on], most[step.observation[on]])
        assert step.action_mask[:, 0].all()
        action = np.where(step.action_mask, random.random((500, 50)), 0).argmax(1)
        following = env.step(action)
        moved = np.abs(following.observation - step.observation)[~step.done]
        assert np.array_equal(moved, (action + 1)[~step.done])
        won = following.observation == 100
        assert np.array_equal(following.reward[:, 0], won)
        assert np.array_equal(following.terminated, won | (following.observation == 0))
        step = following


def test_gambler_begins_with_what_is_asked_for_or_with_anything():
    assert (Config(start=37, num_envs=50).make().reset(0).observation == 37).all()
    begun = Config(num_envs=5000).make().reset(0).observation
    assert np.unique(begun).tolist() == list(range(1, 100))


@pytest.mark.parametrize("start", [100, 250])
def test_gambler_who_has_won_already_is_a_mistake(start):
    with pytest.raises(Mistake, match=f"with {start} has already won"):
        Config(start=start).make()


@pytest.mark.parametrize("goal", [2, 3])
def test_smallest_games_can_be_played(goal):
    env = Config(goal=goal).make()
    assert env.spec.num_actions == 1
    assert env.spec.layout.cells.tolist() == [[0, 0, i] for i in range(goal + 1)]
    assert env.spec.action_names == ("stake 1",)
