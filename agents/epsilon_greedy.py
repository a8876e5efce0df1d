"""Epsilon-greedy for bandits (Sutton & Barto 2018, section 2.4): the arm of the highest mean, but
with probability epsilon any arm.

    Q(a) <- Q(a) + (1 / n_a) (r - Q(a)),  or with a constant step size in place of 1 / n_a

Epsilon 0 is greedy; with initial_mean high it is the optimistic start of section 2.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rlplay.bandits import Bandit
from rlplay.core import Array, Range, Spec


@dataclass(frozen=True)
class Config:
    name: Literal["epsilon_greedy"] = "epsilon_greedy"
    epsilon: Annotated[float, Range(0, 1)] = 0.1
    """Share of pulls that are of any arm."""
    step_size: Annotated[float, Range(0, 1)] = 0.0
    """How far an estimate moves towards each reward; 0 for the mean of all rewards."""
    initial_mean: float = 0.0
    """What every arm is believed to pay before it is pulled."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> EpsilonGreedy:
        """Build the agent. Raises Mistake for a world with more than one state."""
        return EpsilonGreedy(self, spec, seed, learns)


class EpsilonGreedy(Bandit):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config.name, spec, seed, learns, config.initial_mean)
        self.config = config
        self.epsilon, self.step_size = config.epsilon, config.step_size

    def index(self) -> Array:
        return self.tables["mean"]
