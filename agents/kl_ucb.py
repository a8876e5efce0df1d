"""KL-UCB (Garivier & Cappé 2011): UCB with the bound that fits rewards in 0..1 best.

    a_t = argmax_a max{q : n_a kl(Q(a), q) <= ln t + c ln ln t},  any arm not yet tried first
    kl(p, q) = p ln(p / q) + (1 - p) ln((1 - p) / (1 - q))

t = 1 + sum_a n_a is the number of this pull among all that this learner makes, as in the paper. Its
proof needs c = 3; it recommends c = 0 in practice. Rewards outside 0..1 are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numba import njit

from rlplay.bandits import Bandit, check_rewards
from rlplay.core import Array, Range, Spec


@dataclass(frozen=True)
class Config:
    name: Literal["kl_ucb"] = "kl_ucb"
    c: Annotated[float, Range(0)] = 0.0
    """Weight of the second logarithm, which the proof needs and practice does not."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> KLUCB:
        """Build the agent. Raises Mistake for a world with more than one state."""
        return KLUCB(self, spec, seed, learns)


class KLUCB(Bandit):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config.name, spec, seed, learns)
        self.config = config

    def index(self) -> Array:
        return divergence_bound(self.tables["mean"], self.tables["count"], self.config.c)

    def update(self, action: Array, reward: Array, live: Array) -> None:
        """Learn from rewards in 0..1. Raises Mistake where one is not."""
        check_rewards(self.config.name, reward, live, "choose ucb1 or thompson_gaussian")
        super().update(action, reward, live)


@njit(cache=True)
def divergence_bound(mean, count, c):  # [N, k], [N, k] -> [N, k]
    bound = np.empty_like(mean)
    for i in range(len(mean)):
        log = np.log(1 + count[i].sum())
        budget = log + c * np.log(log) if log > 1 else log  # the second one would be negative
        for a in range(mean.shape[1]):
            room = budget / count[i, a] if count[i, a] > 0 else np.inf
            bound[i, a] = highest(min(max(mean[i, a], 0.0), 1.0), room)
    return bound


@njit(cache=True)
def highest(p, room):
    """Return the largest q in p..1 with kl(p, q) <= room; inf where there is no end to the room.

    Newton's method: kl is convex in q, so that from a q that is too large every step stays there
    and comes nearer. Two such are at hand, kl >= 2 (q - p)^2 and kl >= -H(p) - (1 - p) ln(1 - q).
    """
    if room == np.inf or p == 1 or room == 0:
        return np.inf if room == np.inf else p
    entropy = -(1 - p) * np.log1p(-p) - (p * np.log(p) if p > 0 else 0.0)
    q = min(p + np.sqrt(room / 2), -np.expm1(-(room + entropy) / (1 - p)))
    for _ in range(100):
        if q >= 1:  # nearer to one than a number can say
            return 1.0
        excess = -entropy - (p * np.log(q) if p > 0 else 0.0) - (1 - p) * np.log1p(-q) - room
        step = excess * q * (1 - q) / (q - p) if q > p else 0.0
        q -= step
        if step <= 1e-7 * min(q - p, 1 - q):  # what is left is about the square of that
            break
    return max(q, p)
