"""The gradient bandit (Sutton & Barto 2018, section 2.8): preferences that climb what is earned.

    pi = softmax(H),   H(b) <- H(b) + step_size (r - baseline) (1[b = a] - pi(b))  for every arm b

where arm a was pulled and paid r. The baseline is the mean of all rewards before this one, and of
the first reward itself (or 0, for comparison).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numba import njit

from rlplay.bandits import Softmax
from rlplay.core import Array, Range, Spec


@dataclass(frozen=True)
class Config:
    name: Literal["gradient_bandit"] = "gradient_bandit"
    step_size: Annotated[float, Range(0)] = 0.1
    """How far preferences move."""
    baseline: bool = True
    """Whether rewards count by how far they are above the mean of all that came before."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> GradientBandit:
        """Build the agent. Raises Mistake for a world with more than one state."""
        return GradientBandit(self, spec, seed, learns)


class GradientBandit(Softmax):
    """Tables besides `preference`: `count` [N] pulls and `mean` [N] of all their rewards."""

    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config.name, spec, seed, learns)
        self.config = config
        self.tables["count"] = np.zeros(self.num_learners)
        self.tables["mean"] = np.zeros(self.num_learners)

    def update(self, action: Array, reward: Array, live: Array, policy: Array) -> None:
        tables, config = self.tables, self.config
        climb(
            tables["preference"],
            tables["count"],
            tables["mean"],
            action,
            reward,
            live,
            policy,
            config.step_size,
            config.baseline,
        )


@njit(cache=True)
def climb(preference, count, mean, action, reward, live, policy, step_size, baseline):
    """Move preference [N, k] by the pulls `action` [N] under `policy` [N, k], then the mean."""
    for i in range(len(action)):
        if not live[i]:
            continue
        if count[i] == 0:
            mean[i] = reward[i]
        advantage = reward[i] - mean[i] if baseline else reward[i]
        for b in range(preference.shape[1]):
            preference[i, b] += step_size * advantage * ((b == action[i]) - policy[i, b])
        count[i] += 1
        mean[i] += (reward[i] - mean[i]) / count[i]
