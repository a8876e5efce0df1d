"""Thompson sampling for rewards with Gaussian noise of known variance (Thompson 1933; Agrawal &
Goyal 2013b).

    belief of what arm a pays on average = N(m_a, v_a)
    1 / v_a = 1 / v_0 + n_a / s,   m_a = v_a (m_0 / v_0 + n_a Q(a) / s)

with N(m_0, v_0) the belief before the first pull, s the variance of the noise, n_a the pulls of arm
a and Q(a) the mean of what they paid. Each learner draws a mean for each arm from its belief and
pulls the arm of the highest draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from rlplay.bandits import Bandit
from rlplay.core import Array, Range, Spec


@dataclass(frozen=True)
class Config:
    name: Literal["thompson_gaussian"] = "thompson_gaussian"
    noise_variance: Annotated[float, Range(1e-9)] = 1.0
    """Variance of the rewards of one arm, as far as it is known."""
    prior_mean: float = 0.0
    """What every arm is believed to pay before it is pulled."""
    prior_variance: Annotated[float, Range(1e-9)] = 1.0
    """How uncertain that is."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> ThompsonGaussian:
        """Build the agent. Raises Mistake for a world with more than one state."""
        return ThompsonGaussian(self, spec, seed, learns)


class ThompsonGaussian(Bandit):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config.name, spec, seed, learns)
        self.config = config

    def belief(self) -> tuple[Array, Array]:
        """Return mean and variance of what is believed of each arm, [N, k] each."""
        config, count = self.config, self.tables["count"]
        variance = 1 / (1 / config.prior_variance + count / config.noise_variance)
        known = config.prior_mean / config.prior_variance
        known = known + count * self.tables["mean"] / config.noise_variance
        return variance * known, variance

    def index(self) -> Array:
        mean, variance = self.belief()
        return mean + np.sqrt(variance) * self.generator.standard_normal(mean.shape)

    def value(self) -> Array:
        return self.belief()[0]
