"""Laws of rlplay/nets/distributions.py, held against torch.distributions and against counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import distributions as reference

from rlplay.nets.distributions import Categorical, Gaussian, MultiCategorical, log_slope

B = 5
LOGITS = torch.randn(B, 6, generator=torch.Generator().manual_seed(0)) * 2
MASK = torch.rand(B, 6, generator=torch.Generator().manual_seed(1)) < 0.5
MASK[:, 2] = True
MASK[0] = torch.arange(6) == 2  # but one legal action
MEAN = torch.randn(B, 3, generator=torch.Generator().manual_seed(2))
LOG_DEVIATION = torch.randn(B, 3, generator=torch.Generator().manual_seed(3)) * 0.5 - 0.5


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def masked_reference() -> reference.Categorical:
    return reference.Categorical(logits=LOGITS.masked_fill(~MASK, -math.inf))


def test_categorical_is_that_of_torch():
    mine, theirs = Categorical(LOGITS), reference.Categorical(logits=LOGITS)
    actions = torch.arange(B)
    assert torch.allclose(mine.log_prob(actions), theirs.log_prob(actions))
    assert torch.allclose(mine.entropy(), theirs.entropy())
    assert torch.allclose(mine.probs, theirs.probs)
    assert torch.equal(mine.mode(), theirs.probs.argmax(1))


def test_masked_categorical_is_one_over_the_legal_actions():
    mine, theirs = Categorical(LOGITS, MASK), masked_reference()
    assert torch.allclose(mine.probs, theirs.probs)
    assert not mine.probs[~MASK].any()
    legal = torch.where(MASK, theirs.probs.clamp(1e-30), 1)
    assert torch.allclose(mine.entropy(), -(legal * legal.log()).sum(1), atol=1e-6)
    assert mine.entropy()[0] == 0
    assert mine.mode()[0] == 2
    # Negative control: without the mask it is another one.
    assert not torch.allclose(Categorical(LOGITS).probs, theirs.probs)


def test_illegal_actions_are_never_drawn_and_get_no_gradient():
    rows = MASK.repeat(2000, 1)
    logits = (LOGITS * 10).repeat(2000, 1).requires_grad_()
    policy = Categorical(logits, rows)
    drawn = policy.sample(generator())
    assert rows.gather(1, drawn[:, None]).all()
    assert not rows.gather(1, Categorical(logits).sample(generator())[:, None]).all()
    (policy.log_prob(drawn).sum() + policy.entropy().sum()).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[~rows].any()
    assert logits.grad[rows].any()


def test_only_legal_action_is_drawn_even_with_the_worst_of_noise(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, generator: torch.zeros(shape))
    assert Categorical(LOGITS, MASK).sample(generator())[0] == 2


@pytest.mark.parametrize("mask", [None, MASK])
def test_draws_are_as_frequent_as_they_are_probable(mask):
    count = 20_000
    rows = torch.arange(B).repeat_interleave(count)
    policy = Categorical(LOGITS[rows], None if mask is None else mask[rows])
    drawn = policy.sample(generator()).view(B, count)
    share = torch.stack([(drawn == a).float().mean(1) for a in range(6)], 1)
    assert torch.allclose(share, Categorical(LOGITS, mask).probs, atol=0.015)


def test_several_choices_are_independent_ones():
    sizes = (2, 3, 1)
    parts = [reference.Categorical(logits=part) for part in LOGITS.split(sizes, 1)]
    mine = MultiCategorical(LOGITS, sizes)
    drawn = mine.sample(generator())
    assert drawn.shape == (B, 3)
    assert (drawn < torch.tensor(sizes)).all()
    expected = sum(part.log_prob(one) for part, one in zip(parts, drawn.unbind(1), strict=True))
    assert torch.allclose(mine.log_prob(drawn), expected)
    assert torch.allclose(mine.entropy(), sum(part.entropy() for part in parts))
    assert torch.equal(mine.mode()[:, 1], parts[1].probs.argmax(1))


@pytest.mark.parametrize("log_deviation", [LOG_DEVIATION, LOG_DEVIATION[0]])
def test_gaussian_is_that_of_torch(log_deviation):
    mine = Gaussian(MEAN, log_deviation)
    theirs = reference.Normal(MEAN, log_deviation.exp())
    drawn = mine.sample(generator())
    assert torch.allclose(mine.log_prob(drawn), theirs.log_prob(drawn).sum(1), atol=1e-5)
    assert torch.allclose(mine.entropy(), theirs.entropy().sum(1))
    assert torch.equal(mine.mode(), MEAN)
    assert torch.equal(mine.bounded(drawn), drawn.clamp(-1, 1))


def test_squashed_gaussian_is_that_of_torch():
    mine = Gaussian(MEAN.double(), LOG_DEVIATION.double(), squashed=True)
    normal = reference.Normal(MEAN.double(), LOG_DEVIATION.double().exp())
    theirs = reference.TransformedDistribution(normal, reference.TanhTransform())
    drawn = mine.sample(generator())
    action = mine.bounded(drawn)
    assert (action.abs() < 1).all()
    expected = theirs.log_prob(action).sum(1)
    assert torch.allclose(mine.log_prob(drawn), expected, atol=1e-6)
    # Negative control: the density before squashing is another one.
    assert not torch.allclose(normal.log_prob(drawn).sum(1), expected, atol=1e-2)


def test_squashed_density_sums_to_one():
    action = torch.linspace(-1, 1, 200_003, dtype=torch.float64)[1:-1, None]
    policy = Gaussian(torch.full_like(action, 0.3), torch.full_like(action, -0.4), squashed=True)
    density = policy.log_prob(action.atanh()).exp()
    assert float(torch.trapezoid(density, action[:, 0])) == pytest.approx(1, abs=1e-4)


def test_squashed_density_is_finite_where_tanh_is_one():
    far = torch.tensor([[50.0, -50.0, 90.0]])
    assert torch.isfinite(Gaussian(far, torch.zeros(1, 3), squashed=True).log_prob(far)).all()
    assert log_slope(torch.tensor(0.0)) == 0
    assert float(log_slope(torch.tensor(50.0))) == pytest.approx(2 * math.log(2) - 100)


def test_entropy_of_squashed_gaussian_is_the_mean_of_minus_log_density():
    count = 100_000
    mean, log_deviation = (x.repeat_interleave(count, 0) for x in (MEAN, LOG_DEVIATION))
    many = Gaussian(mean, log_deviation, squashed=True)
    surprise = -many.log_prob(many.sample(generator())).view(B, count).mean(1)
    entropy = Gaussian(MEAN, LOG_DEVIATION, squashed=True).entropy()
    assert entropy.numpy() == pytest.approx(surprise.numpy(), abs=0.03)
    assert not np.allclose(Gaussian(MEAN, LOG_DEVIATION).entropy(), surprise, atol=0.1)


def test_gaussian_draws_have_its_mean_and_deviation():
    count = 50_000
    policy = Gaussian(MEAN.repeat_interleave(count, 0), LOG_DEVIATION.repeat_interleave(count, 0))
    drawn = policy.sample(generator()).view(B, count, 3)
    assert torch.allclose(drawn.mean(1), MEAN, atol=0.03)
    assert torch.allclose(drawn.std(1), LOG_DEVIATION.exp(), rtol=0.02)


@pytest.mark.parametrize(
    "policy",
    [Categorical(LOGITS, MASK), MultiCategorical(LOGITS, (2, 4)), Gaussian(MEAN, LOG_DEVIATION)],
)
def test_same_generator_draws_the_same(policy):
    drawn, again = policy.sample(generator()), policy.sample(generator())
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, policy.sample(torch.Generator().manual_seed(8)))
