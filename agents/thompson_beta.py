"""Thompson sampling for rewards that are 0 or 1 (Thompson 1933; Agrawal & Goyal 2012).

What an arm pays on average is believed to be Beta(a + successes, b + failures); each learner draws
a mean for each arm from its belief and pulls the arm of the highest draw.

A reward r between 0 and 1 counts as a success with probability r, as in Agrawal & Goyal; one
outside is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from rlplay.bandits import Bandit, check_rewards
from rlplay.core import Array, Range, Spec


@dataclass(frozen=True)
class Config:
    name: Literal["thompson_beta"] = "thompson_beta"
    prior_successes: Annotated[float, Range(1e-3)] = 1.0
    """The a of the belief before the first pull; 1 and 1 hold every mean for equally likely."""
    prior_failures: Annotated[float, Range(1e-3)] = 1.0
    """The b of the belief before the first pull."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> ThompsonBeta:
        """Build the agent. Raises Mistake for a world with more than one state."""
        return ThompsonBeta(self, spec, seed, learns)


class ThompsonBeta(Bandit):
    """Its `mean` is of successes, so that count * mean of them were seen."""

    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config.name, spec, seed, learns)
        self.config = config

    def belief(self) -> tuple[Array, Array]:
        """Return both parameters of what is believed of each arm, [N, k] each."""
        count, mean = self.tables["count"], self.tables["mean"]
        successes = count * mean
        return (
            self.config.prior_successes + successes,
            self.config.prior_failures + count - successes,
        )

    def index(self) -> Array:
        return self.generator.beta(*self.belief())

    def value(self) -> Array:
        successes, failures = self.belief()
        return successes / (successes + failures)

    def update(self, action: Array, reward: Array, live: Array) -> None:
        """Learn from rewards in 0..1. Raises Mistake where one is not."""
        check_rewards(self.config.name, reward, live, "choose thompson_gaussian")
        success = self.generator.random(len(reward)) < reward
        super().update(action, success.astype(np.float64), live)
