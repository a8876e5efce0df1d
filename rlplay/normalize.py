"""Running means and variances, by which what an agent sees and earns is brought to the size that
networks learn best from (Welford 1962, in batches as Chan et al. 1979).

They change where an agent learns, never where it acts: what was acted on is learned from with the
same numbers, and an evaluation leaves them as they are. Knows neither agents nor networks.
"""

from __future__ import annotations

import numpy as np

from rlplay.core import Array, State

LIMIT = 10.0
"""Beyond this many deviations, numbers are cut off."""
TINY = 1e-8  # added to a variance, that may be 0


class Moments:
    """Mean and variance of all numbers seen so far, each place of an array [...] for itself, in
    float64; 0 and 1 before the first."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.count = 0
        self.mean, self.variance = np.zeros(shape), np.ones(shape)

    def add(self, values: Array) -> None:
        """Take in values [K, ...]."""
        if not (count := len(values)):
            return
        mean, variance = values.mean(0, np.float64), values.var(0, np.float64)
        total = self.count + count
        away = mean - self.mean
        apart = away * away * (self.count * count / total)
        self.variance = (self.variance * self.count + variance * count + apart) / total
        self.mean = self.mean + away * (count / total)
        self.count = total

    @property
    def deviation(self) -> Array:  # [...]
        return np.sqrt(self.variance + TINY)

    def state_dict(self) -> State:
        return {"count": self.count, "mean": self.mean, "variance": self.variance}

    def load_state_dict(self, state: State) -> None:
        self.count = int(state["count"])
        self.mean = np.array(state["mean"], np.float64)
        self.variance = np.array(state["variance"], np.float64)


class Observations(Moments):
    """Observations become numbers of mean 0 and deviation 1."""

    def normalized(self, observation: Array) -> Array:
        """Return observations [..., *shape] as float32 in -LIMIT..LIMIT."""
        scaled = (observation - self.mean) / self.deviation
        return np.clip(scaled, -LIMIT, LIMIT).astype(np.float32)


class Rewards(Moments):
    """Rewards are divided by the deviation of the discounted sum of rewards so far in the episode
    (Engstrom et al. 2020). Their sign, and which of two policies is better, stay the same, but
    for what is cut off."""

    def __init__(self, num_envs: int, discount: float) -> None:
        super().__init__()
        self.discount = discount
        self.running = np.zeros(num_envs)  # [N] the sum so far

    def add_rewards(self, reward: Array, live: Array, done: Array) -> None:
        """Take in rewards [T, N], whether there was anything to earn, and whether the episode was
        over on earning them, [T, N] bool each."""
        sums = np.empty(reward.shape)  # [T, N]
        for t in range(len(reward)):
            self.running = self.discount * self.running + reward[t]
            sums[t] = self.running
            self.running = self.running * ~done[t]
        self.add(sums[live])

    def normalized(self, reward: Array) -> Array:
        """Return rewards [...] as float32 in -LIMIT..LIMIT."""
        return np.clip(reward / self.deviation, -LIMIT, LIMIT).astype(np.float32)

    def cut(self) -> None:
        """The episodes are broken off."""
        self.running[:] = 0

    def state_dict(self) -> State:
        return {**super().state_dict(), "running": self.running}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        if len(state["running"]) == len(self.running):
            self.running = np.array(state["running"], np.float64)
