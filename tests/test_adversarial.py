"""Laws of rlplay/adversarial.py: attacks have the size that they say, leave pictures pictures, and
cost more than noise of that size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.core import Agent, Array, Decision, Step
from rlplay.insight import adversarial
from rlplay.insight.adversarial import (
    added,
    choices,
    fast_gradient_sign,
    noise,
    noise_patch,
    pasted,
    patch,
    universal,
)
from rlplay.insight.saliency import margin
from rlplay.perception.data import digits

CPU = torch.device("cpu")


class Linear(nn.Module):
    """Ten classes of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layer(pictures.flatten(1))


@pytest.fixture(scope="module")
def pictures() -> tuple[Array, Array]:
    arrays, _, _ = digits()
    return arrays["picture"][:600], arrays["label"][:600]


@pytest.fixture(scope="module")
def net(pictures) -> Linear:
    """A classifier that has learned the digits."""
    found, (picture, label) = Linear(), map(torch.from_numpy, pictures)
    adam = torch.optim.Adam(found.parameters(), 0.05)
    for _ in range(80):
        adam.zero_grad()
        F.cross_entropy(found(picture / 255), label).backward()
        adam.step()
    return found.requires_grad_(False)


def margins(net: Linear, pictures: Array, labels: Array) -> Array:
    return margin(net(torch.from_numpy(pictures) / 255), torch.from_numpy(labels)).numpy()


@pytest.mark.parametrize("size", [1, 5, 64])
def test_attacks_have_their_size_and_pixels_stay_in_their_range(net, pictures, size):
    picture, label = pictures
    change = universal(net, CPU, picture, size, seed=0)
    attacks = [fast_gradient_sign(net, CPU, size), noise(size, 0), added(change)]
    for attack in attacks:
        found = attack(picture, label)
        assert found.dtype == np.uint8
        moved = np.abs(found.astype(int) - picture)
        assert moved.max() == size
        inside = (picture >= size) & (picture <= 255 - size)
        if attack is not attacks[2]:
            assert (moved[inside] == size).mean() > 0.99  # where nothing is cut off
    assert np.abs(change).max() <= size


def test_attacks_of_size_0_change_nothing(net, pictures):
    picture, label = pictures
    change = universal(net, CPU, picture, 0, seed=0)
    for attack in (fast_gradient_sign(net, CPU, 0), noise(0, 0), added(change)):
        assert np.array_equal(attack(picture, label), picture)


def test_fast_gradient_costs_more_than_noise_of_that_size(net, pictures):
    picture, label = pictures
    clean = margins(net, picture, label)
    for size in (4, 16):
        fast = margins(net, fast_gradient_sign(net, CPU, size)(picture, label), label)
        control = margins(net, noise(size, 0)(picture, label), label)
        assert (fast < clean).all()
        assert (fast < control).mean() > 0.99
        assert abs((control - clean).mean()) < 0.2 * (clean - fast).mean()


def test_fast_gradient_is_the_sign_of_the_cross_entropy_s_slope(net, pictures):
    picture, label = pictures[0][:50], pictures[1][:50]
    x = (torch.from_numpy(picture) / 255).double().requires_grad_()
    scores = F.linear(x.flatten(1), net.layer.weight.double(), net.layer.bias.double())
    F.cross_entropy(scores, torch.from_numpy(label)).backward()
    assert x.grad is not None
    wanted = (picture + 3 * np.sign(x.grad.numpy())).clip(0, 255).astype(np.uint8)
    found = fast_gradient_sign(net, CPU, 3)(picture, label)
    assert (found == wanted).mean() > 0.999


def test_one_change_for_all_costs_more_than_noise_on_pictures_it_has_not_seen(net, pictures):
    picture, label = pictures
    change = universal(net, CPU, picture[:300], 40, seed=0)
    control = noise(40, 0)
    right = [
        (choices(net, CPU, attack(picture[300:], None)) == label[300:]).mean()
        for attack in (added(change), control)
    ]
    assert right[0] < right[1] - 0.1


def test_a_patch_hides_its_square_only_and_costs_more_than_one_of_noise(net, pictures):
    picture, label = pictures
    square = patch(net, CPU, picture[:300], 3, seed=0)
    assert square.shape == (1, 3, 3)
    right = []
    for one in (square, noise_patch(picture, 3, 0)):
        attack = pasted(one, seed=1)
        found = attack(picture[300:], None)
        changed = (found != picture[300:])[:, 0]
        for rows in (changed.any(2), changed.any(1)):
            where = [np.flatnonzero(row) for row in rows]
            assert max(w.max() - w.min() for w in where if len(w)) < 3
        assert np.array_equal(found, attack(picture[300:], None))  # lies still
        right.append((choices(net, CPU, found) == label[300:]).mean())
    assert right[0] < right[1]


def test_same_seed_same_attack(net, pictures):
    picture, label = pictures
    found = [noise(8, seed)(picture, label) for seed in (3, 3, 4)]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert np.array_equal(*(patch(net, CPU, picture, 2, 3) for _ in range(2)))
    change = universal(net, CPU, picture, 8, 3)
    assert np.array_equal(change, universal(net, CPU, picture, 8, 3))


def test_accuracy_counts_what_is_right(net, pictures):
    picture, label = pictures
    share, low, high = adversarial.accuracy(net, CPU, picture, label, lambda shown, right: shown)
    assert share == (choices(net, CPU, picture) == label).mean()
    assert low < share < high


def test_an_attacked_agent_is_shown_the_attacked_picture():
    class Reads(Agent):
        def act(self, step: Step, explore: bool = True) -> Decision:
            assert not explore
            return Decision(step.observation[:, 0].astype(np.int64), {})

    agent = adversarial.Attacked(Reads(), lambda shown, right: shown + 1)
    step = Step.at(np.array([[1], [4]]), 9)
    assert agent.act(step, explore=False).action.tolist() == [2, 5]
    assert step.observation.tolist() == [[1], [4]]
