"""UCB1 (Auer, Cesa-Bianchi & Fischer 2002): the arm that could pay most, with confidence.

    a_t = argmax_a Q(a) + alpha sqrt(2 ln t / n_a),  any arm not yet tried first

Q(a) is the mean reward of arm a, n_a the number of its pulls, and t = sum_a n_a the number of all
pulls that this learner has made before this one. alpha = 1 is the paper's; Sutton & Barto's c
(2018, section 2.7) is alpha sqrt(2). For rewards of another range than 0..1, alpha grows with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rlplay.bandits import Bandit, upper_bound
from rlplay.core import Array, Range, Spec


@dataclass(frozen=True)
class Config:
    name: Literal["ucb1"] = "ucb1"
    alpha: Annotated[float, Range(0)] = 1.0
    """Width of the confidence bound; 0 is greedy once every arm was tried."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> UCB1:
        """Build the agent. Raises Mistake for a world with more than one state."""
        return UCB1(self, spec, seed, learns)


class UCB1(Bandit):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config.name, spec, seed, learns)
        self.config = config

    def index(self) -> Array:
        return upper_bound(self.tables["mean"], self.tables["count"], self.config.alpha)
