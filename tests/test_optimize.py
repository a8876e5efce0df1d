"""Laws of rlplay/nets/optimize.py: bfloat16 computes, float32 learns, and no bad step is taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.core import Array, Mistake
from rlplay.nets.encoders import Config, Learn
from rlplay.nets.heads import Float32Linear
from rlplay.nets.optimize import Optimizer

SMALL_STEP = 2**-12
"""Far less than the distance from 1 to its neighbours in bfloat16, 2**-8 and 2**-7."""


class Network(nn.Module):
    """A hidden layer that may be bfloat16 and a last one that never is."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Linear(3, 4)
        self.head = Float32Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.body(x.to(self.body.weight.dtype))))


def optimizer(network: nn.Module, dtype: torch.dtype, **settings: float) -> Optimizer:
    return Optimizer(
        network, dtype, **({"learning_rate": 1e-2, "eps": 1e-8, "max_grad_norm": 10.0} | settings)
    )


def loss(network: nn.Module, seed: int = 0) -> Tensor:
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(8, 3)).astype(np.float32))
    return network(x).square().sum()


def ones() -> nn.Linear:
    layer = nn.Linear(4, 4, bias=False)
    nn.init.ones_(layer.weight)
    return layer


def pushed(layer: nn.Linear) -> Tensor:
    """A loss whose gradient is 1 for every weight, whatever the weights."""
    return layer.weight.float().sum()


def test_layers_compute_in_bfloat16_but_for_the_last_and_masters_are_float32():
    network = Network()
    masters = optimizer(network, torch.bfloat16).masters
    assert network.body.weight.dtype == network.body.bias.dtype == torch.bfloat16
    assert network.head.weight.dtype == torch.float32
    assert [master.dtype for master in masters] == [torch.float32] * 4
    assert masters[0] is not network.body.weight
    assert masters[2] is network.head.weight
    assert network(torch.ones(1, 3)).dtype == torch.float32


def test_step_too_small_for_bfloat16_accumulates_in_the_master():
    layer = ones()
    adam = optimizer(layer, torch.bfloat16, learning_rate=SMALL_STEP)
    adam.step(pushed(layer))
    assert torch.equal(layer.weight, torch.ones_like(layer.weight)), "one step shows already"
    for _ in range(63):
        adam.step(pushed(layer))
    moved = 64 * SMALL_STEP
    assert adam.weights()["weight"] == pytest.approx(1 - moved, abs=1e-5)
    assert layer.weight.float().numpy(force=True) == pytest.approx(1 - moved, abs=2**-8)
    # Negative control: in bfloat16 alone every step is rounded away.
    alone = ones().bfloat16()
    plain = torch.optim.Adam(alone.parameters(), SMALL_STEP)
    for _ in range(64):
        plain.zero_grad()
        pushed(alone).backward()
        plain.step()
    assert torch.equal(alone.weight, torch.ones_like(alone.weight))


def test_parameters_are_the_rounded_masters_after_every_step():
    network = Network()
    adam = optimizer(network, torch.bfloat16)
    before = adam.weights()["body.weight"].copy()
    for seed in range(5):
        adam.step(loss(network, seed))
        for parameter, master in zip(adam.parameters, adam.masters, strict=True):
            assert torch.equal(parameter, master.to(parameter.dtype))
    assert np.abs(adam.weights()["body.weight"] - before).max() > 0.01


def test_in_float32_it_is_plain_adam_with_the_norm_clipped():
    network, other = Network(), Network()
    adam = optimizer(network, torch.float32, max_grad_norm=0.5)
    plain = torch.optim.Adam(other.parameters(), 1e-2, eps=1e-8)
    for seed in range(5):
        norm = adam.step(loss(network, seed))
        plain.zero_grad()
        loss(other, seed).backward()
        assert norm == pytest.approx(float(nn.utils.clip_grad_norm_(other.parameters(), 0.5)))
        assert norm > 0.5
        plain.step()
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("factor", [torch.nan, torch.inf])
def test_loss_that_is_no_number_changes_nothing(dtype, factor):
    network = Network()
    adam = optimizer(network, dtype)
    adam.step(loss(network))
    weights = {name: array.copy() for name, array in adam.weights().items()}
    moments = {k: {n: v.copy() for n, v in m.items()} for k, m in adam.state_dict().items()}
    assert not np.isfinite(adam.step(factor * loss(network)))
    for name, array in adam.weights().items():
        assert np.array_equal(array, weights[name])
        for key, value in adam.state_dict()[name].items():
            assert np.array_equal(value, moments[name][key])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("max_grad_norm", [0.5, 1e6])
def test_steps_that_wait_for_nothing_are_the_same_steps(dtype, max_grad_norm):
    network, other = Network(), Network()
    waiting = optimizer(network, dtype, max_grad_norm=max_grad_norm)
    hasty = optimizer(other, dtype, max_grad_norm=max_grad_norm)
    for seed in range(5):
        assert waiting.step(loss(network, seed)) == hasty.advance(loss(other, seed)).item()
    for name, array in waiting.weights().items():
        assert np.array_equal(array, hasty.weights()[name])
        for key, value in waiting.state_dict()[name].items():
            assert np.array_equal(value, hasty.state_dict()[name][key])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("factor", [torch.nan, torch.inf])
def test_step_that_waits_for_nothing_gives_up_at_a_loss_that_is_no_number(dtype, factor):
    network = Network()
    adam = optimizer(network, dtype)

    def known() -> dict[str, list[float]]:
        state = {name: list(part.values()) for name, part in adam.state_dict().items()}
        parts = {name: [array, *state[name]] for name, array in adam.weights().items()}
        return {name: [array.tolist() for array in part] for name, part in parts.items()}

    adam.advance(loss(network))
    before = known()
    for bad in (factor, 1, 1):
        adam.advance(bad * loss(network))
        assert known() == before
        assert all(p.isfinite().all() for p in network.parameters())
    adam.broken.zero_()
    adam.advance(loss(network))
    assert known() != before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_optimizer_goes_on_bitwise(dtype):
    network, other = Network(), Network(seed=1)
    first, second = optimizer(network, dtype), optimizer(other, dtype)
    assert first.state_dict() == {}
    for seed in range(3):
        first.step(loss(network, seed))
    saved = {name: array.copy() for name, array in first.weights().items()}
    moments = {k: {n: v.copy() for n, v in m.items()} for k, m in first.state_dict().items()}
    for seed in range(3, 6):
        first.step(loss(network, seed))
    second.load_weights(saved)
    # Negative control: the weights alone are not enough.
    second.step(loss(other, 3))
    second.load_weights(saved)
    second.load_state_dict(moments)
    for seed in range(3, 6):
        second.step(loss(other, seed))
    for name, array in first.weights().items():
        assert array.tobytes() == second.weights()[name].tobytes()
    fresh = optimizer(third := Network(seed=1), dtype)
    fresh.load_weights(saved)
    for seed in range(3, 6):
        fresh.step(loss(third, seed))
    assert not np.array_equal(first.weights()["body.weight"], fresh.weights()["body.weight"])


def test_weights_of_another_network_are_a_mistake():
    adam = optimizer(Network(), torch.float32)
    weights = dict(adam.weights())
    with pytest.raises(Mistake, match=r"head\.bias"):
        adam.load_weights({**weights, "head.bias": np.zeros(3, np.float32)})
    del weights["body.weight"]
    with pytest.raises(Mistake, match=r"body\.weight"):
        adam.load_weights(weights)


def test_saved_moments_lie_in_memory_as_the_weights_do():
    """The fused Adam does not check: moments that lie otherwise would be those of other weights."""
    parts = []
    for _ in range(2):
        torch.manual_seed(0)
        network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        parts.append((network, optimizer(network, torch.float32)))
    x = torch.rand(2, 3, 5, 5)
    (network, one), (other, two) = parts
    one.step(network(x).square().sum())
    two.load_weights(one.weights())
    two.load_state_dict(one.state_dict())
    one.step(network(x).square().sum())
    two.step(other(x).square().sum())
    assert torch.equal(network.weight, other.weight)


class Paced(nn.Module):
    """An encoder of three layers, some of which learn more slowly, and what lies behind it."""

    def __init__(self, learn: Learn, rate_decay: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        settings = Config("mlp", (5, 4, 3), learn=learn, rate_decay=rate_decay)
        self.encoder = settings.make(Box(-1, 1, (3,), np.float32))
        self.head = Float32Linear(3, 2)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, 0.1, 1)  # so that all of them have a gradient

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x.to(next(self.encoder.parameters()).dtype))[0].flatten(1))


def moves(learn: Learn, rate_decay: float, dtype: torch.dtype, **more: float) -> dict[str, Array]:
    """Return how far one step moves each parameter."""
    network = Paced(learn, rate_decay)
    adam = optimizer(network, dtype, **more)
    before = {name: array.copy() for name, array in adam.weights().items()}
    adam.set_learning_rate(2e-2)
    adam.step(loss(network).mean())
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == (not parameter.requires_grad), name
        assert np.array_equal(
            torch.from_numpy(adam.weights()[name]).to(parameter.dtype).float().numpy(),
            parameter.detach().float().numpy(),
        )
    return {name: array - before[name] for name, array in adam.weights().items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_toward_the_input_learn_slower_by_exactly_the_decay(dtype):
    plain, paced = (moves("all", decay, dtype) for decay in (1.0, 0.5))
    assert plain.keys() == paced.keys()
    for name, move in plain.items():
        layer = int(name.split(".")[2]) if name.startswith("encoder") else 3
        rate = 0.5 ** (3 - layer)
        assert np.abs(move).min() > 0, name
        assert paced[name] == pytest.approx(rate * move, rel=1e-3, abs=1e-7), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("learn", ["none", "last"])
def test_frozen_layers_do_not_move_not_even_by_weight_decay(learn, dtype):
    still = {"none": ("0", "1", "2"), "last": ("0", "1")}[learn]
    for name, move in moves(learn, 0.5, dtype, weight_decay=0.1).items():
        frozen = name.startswith("encoder") and name.split(".")[2] in still
        assert (np.abs(move).max() == 0) == frozen, name
    # Negative control: with all learning, all move.
    assert all(np.abs(move).max() for move in moves("all", 1, dtype, weight_decay=0.1).values())
