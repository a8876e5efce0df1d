"""Linear Thompson sampling (Agrawal & Goyal 2013), with a theta of its own for each arm.

    belief of theta_a = N(A_a^-1 sum r x, scale^2 A_a^-1),   A_a = ridge I + sum x x'

over the pulls of arm a in the contexts x. Each learner draws a theta for each arm from its belief
and pulls the arm of the highest theta . x. Only these products are drawn here, since they alone
decide: N(theta_a . x, scale^2 x' A_a^-1 x), independent between arms and between pulls.

With noise of standard deviation `scale` in the rewards, the belief is the exact posterior from the
prior N(0, scale^2 / ridge). The paper's proof takes a larger scale that grows with ln t.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rlplay.bandits import Linear
from rlplay.core import Array, Range, Spec


@dataclass(frozen=True)
class Config:
    name: Literal["linear_thompson"] = "linear_thompson"
    scale: Annotated[float, Range(0)] = 0.25
    """The paper's v: how widely theta is drawn."""
    ridge: Annotated[float, Range(1e-9)] = 1.0
    """How strongly the theta of an arm is held at 0 before it is pulled."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> LinearThompson:
        """Build the agent. Raises Mistake for a world whose contexts are not vectors."""
        return LinearThompson(self, spec, seed, learns)


class LinearThompson(Linear):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config.name, spec, seed, learns, config.ridge)
        self.config = config

    def index(self, mean: Array, width: Array) -> Array:
        return mean + self.config.scale * width * self.generator.standard_normal(mean.shape)
