"""TD(0) prediction (Sutton 1988; Sutton & Barto 2018, section 6.1): what states are worth under a
given policy, in tables.

V(s) <- V(s) + step_size (r + discount V(s') - V(s))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from rlplay.core import Array, Range, Spec, Trajectory
from rlplay.learners import move
from rlplay.values import Prediction, StateValues


@dataclass(frozen=True)
class Config(Prediction):
    name: Literal["td0"] = "td0"
    step_size: Annotated[float, Range(0, 1)] = 0.1
    """How far an estimate moves towards its target; 0 for one over the number of visits."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> TD0:
        """Build the agent. Raises Mistake where states or actions are not discrete, and where there
        is no such policy."""
        return TD0(self, spec, seed, learns)


class TD0(StateValues):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config, spec, seed, learns)
        self.config = config

    def learn(self, trajectory: Trajectory) -> dict[str, float | Array]:
        t = self.transition(trajectory, self.config.discount)
        value, count = self.tables["value"], self.tables["count"]
        target = t.reward + t.discount * value[np.arange(self.num_learners), t.next_state]
        error = move(value, count, t.state, target, t.live, self.config.step_size)
        return {"train/td_error": error, **self.error(t.over)}
