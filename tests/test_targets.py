"""Laws of rlplay/targets.py, with numbers worked out by hand, or from the definitions."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlplay.core import Step
from rlplay.targets import gae, lambda_return, n_step_return, q_target

TARGET = torch.tensor([[1.0, 4.0, 2.0], [10.0, -3.0, 5.0]])
ONLINE = torch.tensor([[9.0, 0.0, 1.0], [0.0, 1.0, 7.0]])
RETURNS = torch.tensor([0.5, -1.0])
DISCOUNT = torch.tensor([0.9, 0.5])


def test_target_is_the_return_and_the_discounted_best_next_value():
    assert q_target(RETURNS, DISCOUNT, TARGET).tolist() == pytest.approx([0.5 + 3.6, -1.0 + 5.0])


def test_double_values_the_online_choice_with_the_target_network():
    double = q_target(RETURNS, DISCOUNT, TARGET, ONLINE)
    assert double.tolist() == pytest.approx([0.5 + 0.9 * 1.0, -1.0 + 0.5 * 5.0])
    # The two ways to get it wrong give other numbers.
    assert not torch.allclose(double, q_target(RETURNS, DISCOUNT, TARGET))
    assert not torch.allclose(double, q_target(RETURNS, DISCOUNT, ONLINE))


def test_target_passes_no_gradient_to_either_network():
    target, online = TARGET.clone().requires_grad_(), ONLINE.clone().requires_grad_()
    assert not q_target(RETURNS, DISCOUNT, target, online).requires_grad


def settled_value(discount):
    """Value of an endless world that pays 1 a step, learned from episodes of 8 steps."""
    value = torch.zeros(8, 1)
    for _ in range(2000):
        value = q_target(torch.ones(8), discount, value).mean().expand(8, 1)
    return float(value[0, 0])


def test_truncation_bootstraps_and_termination_does_not():
    last, gamma = np.arange(8) == 7, 0.98
    truncated = Step.at(np.zeros(8), 1, truncated=last)
    terminated = Step.at(np.zeros(8), 1, terminated=last)
    assert settled_value(torch.from_numpy(gamma * truncated.discount)) == pytest.approx(50, abs=0.1)
    # Negative control: the same episodes, taken to be truly over.
    assert settled_value(torch.from_numpy(gamma * terminated.discount)) == pytest.approx(
        1 / (1 - gamma * 7 / 8), abs=0.1
    )


# --- returns and advantages along a rollout ----------------------------------------------------


class Rollout(NamedTuple):
    reward: torch.Tensor  # [T, N]
    discount: torch.Tensor  # [T, N]
    value: torch.Tensor  # [T + 1, N]
    live: torch.Tensor  # [T, N] bool
    over: torch.Tensor  # [T + 1, N] bool


@st.composite
def rollouts(draw):
    """Return T decisions of N envs as the house plays them: after an episode's last moment there is
    a step on which nothing is earned, and which leads to the first moment of the next."""
    length, n = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    over = random.random((length + 1, n)) < draw(st.sampled_from([0, 0.2, 0.5]))
    for t in range(length):
        over[t + 1] &= ~over[t]
    terminated = over & (random.random(over.shape) < 0.5)
    worthless = terminated | (random.random(over.shape) < 0.1)  # a lost life, in mid-game
    sign = np.where(random.random(over.shape) < draw(st.sampled_from([0, 0.5])), -1, 1)
    discount = np.where(over[:-1], 1.0, draw(st.sampled_from([0, 0.9, 1])) * sign[1:])
    discount = np.where(worthless[1:] & ~over[:-1], 0, discount)
    reward = np.where(over[:-1], 0, random.normal(size=(length, n)))
    value = random.normal(size=(length + 1, n))
    arrays = (reward, discount, value, ~over[:-1], over)
    return Rollout(*map(torch.from_numpy, arrays))


def by_hand(rollout, t, i, num_steps):
    """Return the n-step return of decision t of env i, from the definition."""
    total, worth = 0.0, 1.0
    for k in range(t, min(t + num_steps, len(rollout.reward))):
        total += worth * float(rollout.reward[k, i])
        worth *= float(rollout.discount[k, i])
        if rollout.over[k + 1, i]:
            break
    return total + worth * float(rollout.value[k + 1, i])


def steps_left(rollout, t, i):
    """Return how many steps there are from decision t to the end of the episode or rollout."""
    later = rollout.over[t + 1 :, i].tolist()
    return later.index(True) + 1 if True in later else len(later)


@settings(deadline=None, max_examples=60)
@given(rollouts(), st.integers(1, 14))
def test_n_step_returns_are_those_of_the_definition(rollout, num_steps):
    returns = n_step_return(*rollout[:4], num_steps)
    for t, i in np.ndindex(*rollout.reward.shape):
        live = rollout.live[t, i]
        expected = by_hand(rollout, t, i, num_steps) if live else float(rollout.value[t, i])
        assert float(returns[t, i]) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(rollouts(), st.sampled_from([0.0, 0.5, 0.95, 1.0]))
def test_lambda_returns_and_advantages_are_mixtures_of_n_step_returns(rollout, trace):
    returns = lambda_return(*rollout[:4], trace)
    advantage = gae(*rollout[:4], trace)
    for t, i in np.ndindex(*rollout.reward.shape):
        value = float(rollout.value[t, i])
        if not rollout.live[t, i]:
            assert float(advantage[t, i]) == 0
            assert float(returns[t, i]) == pytest.approx(value)
            continue
        left = steps_left(rollout, t, i)
        weights = [(1 - trace) * trace ** (n - 1) for n in range(1, left)] + [trace ** (left - 1)]
        expected = sum(w * by_hand(rollout, t, i, n) for n, w in enumerate(weights, 1))
        assert sum(weights) == pytest.approx(1)
        assert float(returns[t, i]) == pytest.approx(expected, abs=1e-9)
        assert float(advantage[t, i]) == pytest.approx(expected - value, abs=1e-9)


def test_nothing_flows_across_an_end_and_a_cut_is_bootstrapped():
    over = torch.tensor([[False], [False], [True], [False], [False]])
    reward = torch.tensor([[1.0], [1.0], [0.0], [100.0]])
    value = torch.tensor([[0.0], [0.0], [10.0], [0.0], [0.0]])
    cut = torch.tensor([[0.5], [0.5], [0.5], [0.5]])
    ended = torch.tensor([[0.5], [0.0], [0.5], [0.5]])
    live = ~over[:-1]
    assert gae(reward, cut, value, live, 1).ravel().tolist() == [4.0, 6.0, 0.0, 100.0]
    assert gae(reward, ended, value, live, 1).ravel().tolist() == [1.5, 1.0, 0.0, 100.0]
    # Negative control: taken to be live, the ignored step lets the next episode flow back.
    leaky = gae(reward, cut, value, torch.ones_like(live), 1).ravel().tolist()
    assert leaky[1] != 6.0


def test_advantages_equal_those_of_stable_baselines3():
    from gymnasium import spaces
    from stable_baselines3.common.buffers import RolloutBuffer

    random, length, n = np.random.default_rng(0), 32, 4
    over = random.random((length + 1, n)) < 0.2  # it resets on the very step: no ignored actions
    reward, value = random.normal(size=(length, n)), random.normal(size=(length + 1, n))
    box = spaces.Box(-1, 1, (1,))
    buffer = RolloutBuffer(length, box, box, gae_lambda=0.9, gamma=0.97, n_envs=n)
    for t in range(length):
        zeros = np.zeros((n, 1))
        log_prob = torch.zeros(n)
        buffer.add(zeros, zeros, reward[t], over[t], torch.from_numpy(value[t]), log_prob)
    buffer.compute_returns_and_advantage(torch.from_numpy(value[-1]), over[-1])
    discount = 0.97 * ~over[1:]
    arrays = (reward, discount, value, np.ones((length, n), bool))
    tensors = [torch.from_numpy(array) for array in arrays]
    assert gae(*tensors, 0.9).numpy() == pytest.approx(buffer.advantages, abs=1e-5)
    assert lambda_return(*tensors, 0.9).numpy() == pytest.approx(buffer.returns, abs=1e-5)
