"""Laws of rlplay/nets/heads.py, with values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rlplay.nets.heads import QHead
from rlplay.nets.optimize import convert

FEATURES = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def linear(parameters: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]


@pytest.mark.parametrize("hidden", [0, 7])
def test_dueling_is_value_plus_advantage_less_its_mean_from_streams_of_their_own(hidden):
    head = QHead(12, num_actions=4, hidden=hidden, dueling=True)
    weights, x = dict(head.named_parameters()), FEATURES.flatten(1)
    value = F.relu(linear(weights, "value_hidden", x)) if hidden else x
    advantage = F.relu(linear(weights, "hidden", x)) if hidden else x
    value, advantage = linear(weights, "value", value), linear(weights, "advantage", advantage)
    q_values = head(FEATURES)
    torch.testing.assert_close(q_values, value + advantage - advantage.mean(1, keepdim=True))
    torch.testing.assert_close(q_values.mean(1, keepdim=True), value)


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("hidden", [0, 7])
def test_every_parameter_learns(hidden, dueling):
    head = QHead(12, num_actions=4, hidden=hidden, dueling=dueling)
    head(FEATURES)[:, 0].square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("taught", [False, True])
def test_one_action_taught_moves_the_others_only_where_they_duel(taught):
    """What dueling is for: the value of the state is shared by all actions."""
    head = QHead(12, num_actions=4, hidden=0, dueling=taught)
    before = head(FEATURES).detach()
    optimizer = torch.optim.SGD(head.parameters(), 0.1)
    (-head(FEATURES)[:, 0].sum()).backward()
    optimizer.step()
    moved = (head(FEATURES) - before).detach()
    assert (moved[:, 0] > 0).all()
    others = moved[:, 1:].abs().max() > 1e-3
    assert others == taught


@pytest.mark.parametrize("dueling", [False, True])
def test_in_bfloat16_the_last_layers_and_the_values_are_float32(dueling):
    head = QHead(12, num_actions=4, hidden=7, dueling=dueling)
    convert(head, torch.bfloat16)
    kinds = {name: parameter.dtype for name, parameter in head.named_parameters()}
    assert kinds["hidden.weight"] == torch.bfloat16
    assert kinds["advantage.weight"] == torch.float32
    assert kinds.get("value.weight", torch.float32) == torch.float32
    assert head(FEATURES.bfloat16()).dtype == torch.float32
