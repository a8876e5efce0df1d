"""Feature maps -> what an agent needs to know. The last layer of every head works in float32, for
values differ by less than bfloat16 can tell apart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.core import Mistake
from rlplay.nets.distributions import Categorical, Distribution, Gaussian, MultiCategorical

if TYPE_CHECKING:
    import gymnasium

LOG_DEVIATION = (-20.0, 2.0)  # bounds of an output that is a log deviation (Haarnoja et al. 2018)


class Float32Linear(nn.Linear):
    """A linear layer that stays in float32 when its network is converted (see nets/optimize)."""

    keep_float32 = True

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.float())


class Float32Convolution(nn.Conv2d):
    """A convolution that stays in float32 when its network is converted."""

    keep_float32 = True

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.float())


class QHead(nn.Module):
    """Coarsest map [B, C, H, W] -> action values [B, A] float32. With `dueling`, values and
    advantages have streams of their own (Wang et al. 2016)."""

    def __init__(self, num_features: int, num_actions: int, hidden: int, dueling: bool) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_features, hidden) if hidden else None
        self.value_hidden = nn.Linear(num_features, hidden) if hidden and dueling else None
        self.advantage = Float32Linear(hidden or num_features, num_actions)
        self.value = Float32Linear(hidden or num_features, 1) if dueling else None

    def forward(self, features: Tensor) -> Tensor:
        x = features.flatten(1)
        advantage = self.advantage(x if self.hidden is None else F.relu(self.hidden(x)))
        if self.value is None:
            return advantage
        value = self.value(x if self.value_hidden is None else F.relu(self.value_hidden(x)))
        return value + advantage - advantage.mean(1, keepdim=True)


class PolicyHead(nn.Module):
    """Features [B, F] -> a distribution over the actions of `space`, in float32. The deviation of
    continuous actions is a parameter of its own or, if `deviation_by_state`, an output."""

    keep_float32 = True

    def __init__(
        self,
        num_features: int,
        space: gymnasium.Space,
        deviation: float = 1.0,
        deviation_by_state: bool = False,
        squashed: bool = False,
    ) -> None:
        super().__init__()
        self.space, self.squashed = space, squashed
        log_deviation = torch.full((math.prod(space.shape or ()),), math.log(deviation))
        self.log_deviation = nn.Parameter(log_deviation) if isinstance(space, Box) else None
        self.by_state = None
        if isinstance(space, Discrete):
            num_outputs = int(space.n)
        elif isinstance(space, MultiDiscrete):
            num_outputs = int(space.nvec.sum())
        elif isinstance(space, Box):
            num_outputs = len(log_deviation)
            self.by_state = Float32Linear(num_features, num_outputs) if deviation_by_state else None
        else:
            raise Mistake(f"a policy cannot choose from {space}: set another agent or env")
        self.layer = Float32Linear(num_features, num_outputs)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Distribution:
        output = self.layer(features)
        if isinstance(self.space, Discrete):
            return Categorical(output, mask)
        if isinstance(self.space, MultiDiscrete):
            return MultiCategorical(output, self.space.nvec.ravel().tolist())
        assert self.log_deviation is not None
        log_deviation = self.log_deviation  # not cut off: a parameter beyond would never come back
        if self.by_state is not None:
            log_deviation = (log_deviation + self.by_state(features)).clamp(*LOG_DEVIATION)
        return Gaussian(output, log_deviation, self.squashed)


class ValueHead(nn.Module):
    """Features [B, F] -> values [B] float32."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.layer = Float32Linear(num_features, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.layer(features)[:, 0]
