"""LinUCB with disjoint arms (Li, Chu, Langford & Schapire 2010, algorithm 1): UCB in a context.

    a_t = argmax_a theta_a . x + alpha sqrt(x' A_a^-1 x)
    A_a = ridge I + sum x x',   theta_a = A_a^-1 sum r x   over the pulls of arm a

with x the context that is seen. The paper has ridge = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rlplay.bandits import Linear
from rlplay.core import Array, Range, Spec


@dataclass(frozen=True)
class Config:
    name: Literal["linucb"] = "linucb"
    alpha: Annotated[float, Range(0)] = 1.0
    """Width of the confidence bound."""
    ridge: Annotated[float, Range(1e-9)] = 1.0
    """How strongly the theta of an arm is held at 0 before it is pulled."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> LinUCB:
        """Build the agent. Raises Mistake for a world whose contexts are not vectors."""
        return LinUCB(self, spec, seed, learns)


class LinUCB(Linear):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config.name, spec, seed, learns, config.ridge)
        self.config = config

    def index(self, mean: Array, width: Array) -> Array:
        return mean + self.config.alpha * width
