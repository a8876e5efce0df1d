"""Feature maps -> what an agent needs to know. The last layer of every head works in float32, for
values differ by less than bfloat16 can tell apart."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Float32Linear(nn.Linear):
    """A linear layer that stays in float32 when its network is converted (see nets/optimize)."""

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
