"""UCB1-Tuned (Auer, Cesa-Bianchi & Fischer 2002, section 4): UCB1 that looks at how much an arm's
rewards vary, for rewards in 0..1.

    a_t = argmax_a Q(a) + sqrt((ln t / n_a) min(1/4, V_a)),  any arm not yet tried first
    V_a = variance of the rewards of a + sqrt(2 ln t / n_a)

t = sum_a n_a is the number of all pulls that this learner has made before this one; 1/4 is the
largest variance that rewards in 0..1 can have. The paper proves no bound for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit

from rlplay.bandits import Bandit
from rlplay.core import Array, Spec


@dataclass(frozen=True)
class Config:
    name: Literal["ucb1_tuned"] = "ucb1_tuned"

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> UCB1Tuned:
        """Build the agent. Raises Mistake for a world with more than one state."""
        return UCB1Tuned(self, spec, seed, learns)


class UCB1Tuned(Bandit):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config.name, spec, seed, learns)
        self.tables["variance"] = np.zeros_like(self.tables["mean"])

    def index(self) -> Array:
        return tuned_bound(self.tables["mean"], self.tables["variance"], self.tables["count"])

    def update(self, action: Array, reward: Array, live: Array) -> None:
        mean, variance = self.tables["mean"], self.tables["variance"]
        add_with_variance(self.tables["count"], mean, variance, action, reward, live)


@njit(cache=True, error_model="numpy")
def tuned_bound(mean, variance, count):  # [N, k] each -> [N, k]
    bound = np.empty_like(mean)
    for i in range(len(mean)):
        log = np.log(max(count[i].sum(), 1.0))
        for a in range(mean.shape[1]):
            if count[i, a] > 0:
                largest = variance[i, a] + np.sqrt(2 * log / count[i, a])
                bound[i, a] = mean[i, a] + np.sqrt(log / count[i, a] * min(0.25, largest))
            else:
                bound[i, a] = np.inf
    return bound


@njit(cache=True)
def add_with_variance(count, mean, variance, action, reward, live):  # [N, k] three times, [N] each
    """Count a pull and move the mean and the variance of its arm's rewards (Welford 1962)."""
    for i in range(len(action)):
        if live[i]:
            arm = action[i]
            count[i, arm] += 1
            before = reward[i] - mean[i, arm]
            mean[i, arm] += before / count[i, arm]
            product = before * (reward[i] - mean[i, arm])
            variance[i, arm] += (product - variance[i, arm]) / count[i, arm]
