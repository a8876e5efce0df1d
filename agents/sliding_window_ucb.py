"""Sliding-window UCB (Garivier & Moulines 2008): UCB1 on the last pulls alone, for arms that move.

    a_t = argmax_a Q(a) + alpha sqrt(2 ln min(t, window) / n_a),  any arm not in the window first

Q(a) and n_a are mean and number of the pulls of arm a among the last `window` pulls of this
learner, and t is the number of all its pulls before this one. The paper writes the width as
B sqrt(xi ln min(t, window) / n_a) for rewards up to B, so that alpha = B sqrt(xi / 2), and takes
the window 2 B sqrt(pulls ln(pulls) / changes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numba import njit

from rlplay.bandits import Bandit, upper_bound
from rlplay.core import Array, Mistake, Range, Spec


@dataclass(frozen=True)
class Config:
    name: Literal["sliding_window_ucb"] = "sliding_window_ucb"
    alpha: Annotated[float, Range(0)] = 0.5
    """Width of the confidence bound. The paper's proof needs more than 1/2 for rewards in 0..1."""
    window: Annotated[int, Range(1)] = 300
    """How many pulls, of whatever arms, are remembered."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> SlidingWindowUCB:
        """Build the agent. Raises Mistake for a world with more than one state, and for a window
        that does not fit."""
        return SlidingWindowUCB(self, spec, seed, learns)


class SlidingWindowUCB(Bandit):
    """Tables besides `count` and `mean`: `sum` [N, k] of the rewards in the window, the pulls in it
    as a ring, `arm` [N, W] int64 and `reward` [N, W], and `pulls` [N] int64, all of them."""

    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config.name, spec, seed, learns)
        self.config = config
        shape = (self.num_learners, config.window)
        if (size := 16 * np.prod(shape, dtype=float)) > 8e9:
            raise Mistake(
                f"windows of {shape[1]} pulls for {shape[0]} envs need {size * 1e-9:.0f} GB;"
                " set agent.window or env.num_envs lower"
            )
        self.tables["sum"] = np.zeros_like(self.tables["mean"])
        self.tables["arm"] = np.zeros(shape, np.int64)
        self.tables["reward"] = np.zeros(shape)
        self.tables["pulls"] = np.zeros(self.num_learners, np.int64)

    def index(self) -> Array:
        return upper_bound(self.tables["mean"], self.tables["count"], self.config.alpha)

    def update(self, action: Array, reward: Array, live: Array) -> None:
        tables = self.tables
        slide(
            tables["count"],
            tables["mean"],
            tables["sum"],
            tables["arm"],
            tables["reward"],
            tables["pulls"],
            action,
            reward,
            live,
        )


@njit(cache=True)
def slide(count, mean, total, arms, rewards, pulls, action, reward, live):
    """Let the newest pull of each learner take the place of the oldest in its window."""
    window = arms.shape[1]
    for i in range(len(action)):
        if not live[i]:
            continue
        place, new = pulls[i] % window, action[i]
        old = arms[i, place] if pulls[i] >= window else new
        if pulls[i] >= window:
            count[i, old] -= 1
            total[i, old] -= rewards[i, place]
        count[i, new] += 1
        total[i, new] += reward[i]
        arms[i, place], rewards[i, place] = new, reward[i]
        pulls[i] += 1
        if pulls[i] % window == 0:  # add up anew, so that rounding errors are forgotten too
            total[i] = 0
            for w in range(window):
                total[i, arms[i, w]] += rewards[i, w]
            mean[i] = total[i] / np.maximum(count[i], 1)
        for arm in (old, new):
            mean[i, arm] = total[i, arm] / max(count[i, arm], 1)
