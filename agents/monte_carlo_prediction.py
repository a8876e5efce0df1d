"""Monte-Carlo prediction (Sutton & Barto 2018, section 5.1; Singh & Sutton 1996 on first and every
visit): what states are worth under a given policy, as the mean of the returns that followed.

    G_t = r_{t+1} + discount G_{t+1}
    V(s_t) <- V(s_t) + (1 / n) (G_t - V(s_t)),  or with a constant step size in place of 1 / n

The states of an episode are learned of when it is over, first things first. An episode that was cut
short is taken to have earned, from its last state on, what that state was believed to be worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from rlplay.core import Array, Range, Spec, Trajectory
from rlplay.learners import learn_from_episodes, remember
from rlplay.values import Prediction, StateValues


@dataclass(frozen=True)
class Config(Prediction):
    name: Literal["monte_carlo_prediction"] = "monte_carlo_prediction"
    step_size: Annotated[float, Range(0, 1)] = 0.0
    """How far an estimate moves towards each return; 0 for the mean of all returns."""
    visits: Literal["first", "every"] = "first"
    """Which visits to a state in an episode count: the first only, or every one."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> MonteCarloPrediction:
        """Build the agent. Raises Mistake where states or actions are not discrete, and where there
        is no such policy."""
        return MonteCarloPrediction(self, spec, seed, learns)


class MonteCarloPrediction(StateValues):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config, spec, seed, learns)
        self.config = config
        self.cut()

    def cut(self) -> None:
        """Forget the episodes under way."""
        n = self.num_learners
        self.memory = {
            "length": np.zeros(n, np.int64),
            "state": np.zeros((n, 16), np.int64),
            "reward": np.zeros((n, 16)),
            "discount": np.zeros((n, 16)),
        }

    def learn(self, trajectory: Trajectory) -> dict[str, float | Array]:
        t, memory = self.transition(trajectory, self.config.discount), self.memory
        remember(memory, t.live, state=t.state, reward=t.reward, discount=t.discount)
        if t.over.any():
            value = self.tables["value"]
            learn_from_episodes(
                value,
                self.tables["count"],
                memory["state"],
                memory["reward"],
                memory["discount"],
                memory["length"],
                t.over,
                value[np.arange(self.num_learners), t.next_state],
                self.config.visits == "first",
                self.config.step_size,
            )
            memory["length"][t.over] = 0
        return self.error(t.over)
