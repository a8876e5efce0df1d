"""Laws of rlplay/targets.py, with numbers worked out by hand."""

import numpy as np
import pytest
import torch

from rlplay.core import Step
from rlplay.targets import q_target

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
