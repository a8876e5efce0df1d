"""What a network remembers of an episode: LSTM (Hochreiter & Schmidhuber 1997) and GRU (Cho et al.
2014), for worlds that do not show all that matters in one moment. Knows neither agents nor actions.

The memory of N envs is one tensor [N, M], zeros where an episode begins; an LSTM's hidden and cell
state lie in it side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rlplay.core import Range, State, Step


@dataclass(frozen=True)
class Config:
    name: Literal["none", "gru", "lstm"] = "none"
    """What carries memory from moment to moment of an episode. On a CPU an lstm is the faster."""
    size: Annotated[int, Range(1)] = 128
    """Numbers that it remembers."""

    def make(self, num_inputs: int) -> Recurrent | None:
        return None if self.name == "none" else Recurrent(self, num_inputs)


class Recurrent(nn.Module):
    """Features [T * N, F] of T moments, and the memory before them, to features [T * N, size] and
    the memory after them. It works in float32, for errors add up with time."""

    keep_float32 = True

    def __init__(self, config: Config, num_inputs: int) -> None:
        super().__init__()
        kind = nn.LSTM if config.name == "lstm" else nn.GRU
        self.layer = kind(num_inputs, config.size)
        self.memory_size = config.size * (2 if config.name == "lstm" else 1)  # M
        for name, parameter in self.layer.named_parameters():
            if name.startswith("weight"):
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)

    def forward(
        self, features: Tensor, memory: Tensor, first: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`memory` is [N, M], and `first` [T * N] bool is true where an episode begins; None for
        nowhere."""
        num_envs = len(memory)
        features = features.float().unflatten(0, (-1, num_envs))  # [T, N, F]
        if first is None:
            seen, memory = self.walk(features, memory)
            return seen.flatten(0, 1), memory
        # One call of torch's layer, which is fast, from each moment at which any env begins anew to
        # the next one. To pack episodes instead is slower: its backward pass is of T squared.
        first = first.unflatten(0, (-1, num_envs))
        begins = {0, *first.any(1).nonzero()[:, 0].tolist()}
        walks = []
        for part, new in zip(pieces(features, begins), pieces(first, begins), strict=True):
            seen, memory = self.walk(part, memory.masked_fill(new[0][:, None], 0))
            walks.append(seen)
        return torch.cat(walks).flatten(0, 1), memory

    def walk(self, features: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Go through moments [T, N, F] of which only the first can begin an episode."""
        if isinstance(self.layer, nn.LSTM):
            hidden, cell = (part[None].contiguous() for part in memory.chunk(2, 1))
            seen, (hidden, cell) = self.layer(features, (hidden, cell))
            return seen, torch.cat([hidden[0], cell[0]], 1)
        seen, hidden = self.layer(features, memory[None].contiguous())
        return seen, hidden[0]


def pieces(column: Tensor, begins: set[int]) -> tuple[Tensor, ...]:
    """Cut a column [T, ...] before each of the moments in `begins`, of which one is 0."""
    starts = torch.tensor(sorted(begins))
    return column.split(torch.diff(starts, append=torch.tensor([len(column)])).tolist())


class Stream:
    """The memory of N envs in which an agent acts, one moment after the other."""

    def __init__(self, memory_size: int, device: torch.device) -> None:
        self.memory_size, self.device = memory_size, device
        self.forget()

    def forget(self) -> None:
        """The next moment does not follow from the last one."""
        self.memory = torch.zeros(0, self.memory_size, device=self.device)  # [N, M] so far
        self.over = np.zeros(0, bool)  # [N] the last moment ended an episode

    def before(self, step: Step) -> Tensor:
        """Return the memory [N, M] of what came before a moment: none in the first of an episode,
        and none where there are other envs than at the last moment."""
        if len(step.done) != len(self.memory):
            return self.memory.new_zeros(len(step.done), self.memory_size)
        over = torch.from_numpy(self.over).to(self.device)
        return self.memory.masked_fill(over[:, None], 0)

    def remember(self, step: Step, memory: Tensor) -> None:
        """Take over the memory [N, M] of all up to this moment."""
        self.memory, self.over = memory, step.done

    def state_dict(self) -> State:
        return {"memory": self.memory.cpu().numpy(), "over": self.over}

    def load_state_dict(self, state: State) -> None:
        self.memory = torch.from_numpy(np.array(state["memory"])).to(self.device)
        self.over = np.array(state["over"])
