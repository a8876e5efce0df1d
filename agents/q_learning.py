"""Q-learning (Watkins 1989; Sutton & Barto 2018, section 6.5), in tables.

Q(s, a) <- Q(s, a) + step_size (r + discount max_b Q(s', b) - Q(s, a))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlplay.core import Array, Spec, Trajectory
from rlplay.values import ActionValues, Control


@dataclass(frozen=True)
class Config(Control):
    name: Literal["q_learning"] = "q_learning"

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> QLearning:
        """Build the agent. Raises Mistake where states or actions are not discrete."""
        return QLearning(self, spec, seed, learns)


class QLearning(ActionValues):
    def learn(self, trajectory: Trajectory) -> dict[str, float | Array]:
        t = self.transition(trajectory, self.settings.discount)
        target = t.reward + t.discount * self.expected(t, epsilon=0.0)
        return {"train/td_error": self.move(t.state, t.action, target, t.live)}
