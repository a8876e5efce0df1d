"""Discounted UCB (Garivier & Moulines 2008): UCB1 that forgets, for arms that move.

    a_t = argmax_a Q(a) + alpha sqrt(2 ln n / n_a),   n = sum_a n_a,  any arm not yet tried first

Every pull shrinks all n_a by the discount, then adds 1 to that of the pulled arm; Q(a) is the mean
of the rewards of arm a, weighted likewise. With discount 1 this is UCB1. The paper writes the width
as 2 B sqrt(xi ln n / n_a) for rewards up to B, so that alpha = B sqrt(2 xi), and takes the discount
1 - sqrt(changes / pulls) / (4 B).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from numba import njit

from rlplay.bandits import Bandit, upper_bound
from rlplay.core import Array, Range, Spec


@dataclass(frozen=True)
class Config:
    name: Literal["discounted_ucb"] = "discounted_ucb"
    alpha: Annotated[float, Range(0)] = 0.5
    """Width of the confidence bound. The paper's proof needs more than 1 for rewards in 0..1, but
    with so much most of what is remembered are trials of arms known to be bad."""
    discount: Annotated[float, Range(0, 1)] = 0.995
    """What a reward counts one pull later, of whatever arm; 1 forgets nothing."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> DiscountedUCB:
        """Build the agent. Raises Mistake for a world with more than one state."""
        return DiscountedUCB(self, spec, seed, learns)


class DiscountedUCB(Bandit):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config.name, spec, seed, learns)
        self.config = config

    def index(self) -> Array:
        return upper_bound(self.tables["mean"], self.tables["count"], self.config.alpha)

    def update(self, action: Array, reward: Array, live: Array) -> None:
        # The means stay: both parts of a ratio shrink.
        forget(self.tables["count"], live, self.config.discount)
        super().update(action, reward, live)


@njit(cache=True)
def forget(count, live, discount):  # [N, k], [N] bool
    for i in range(len(count)):
        if live[i]:
            for a in range(count.shape[1]):
                count[i, a] *= discount
