"""SARSA (Rummery & Niranjan 1994; Sutton & Barto 2018, section 6.4), in tables.

Q(s, a) <- Q(s, a) + step_size (r + discount Q(s', a') - Q(s, a))

a' is what the agent does in s', so each transition waits until that is decided. Where the episode
is cut short nothing more is decided, and what epsilon-greedy play expects of s' stands in for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlplay.core import Array, Spec, Trajectory
from rlplay.values import ActionValues, Control


@dataclass(frozen=True)
class Config(Control):
    name: Literal["sarsa"] = "sarsa"

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> Sarsa:
        """Build the agent. Raises Mistake where states or actions are not discrete."""
        return Sarsa(self, spec, seed, learns)


class Sarsa(ActionValues):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config, spec, seed, learns)
        self.cut()

    def cut(self) -> None:
        """Forget the transitions that wait."""
        n = self.num_learners
        self.memory = {
            "waits": np.zeros(n, bool),
            "state": np.zeros(n, np.int64),
            "action": np.zeros(n, np.int64),
            "reward": np.zeros(n),
            "discount": np.zeros(n),
        }

    def learn(self, trajectory: Trajectory) -> dict[str, float | Array]:
        t = self.transition(trajectory, self.settings.discount)
        before = self.memory
        value = self.tables["q"][np.arange(self.num_learners), t.state, t.action]
        target = before["reward"] + before["discount"] * value
        error = self.move(before["state"], before["action"], target, before["waits"])
        if num_over := t.over.sum():
            target = t.reward + t.discount * self.expected(t, self.settings.epsilon)
            last = self.move(t.state, t.action, target, t.over)
            num_waiting = before["waits"].sum()
            error = float((num_waiting * error + num_over * last) / (num_waiting + num_over))
        self.memory = {
            "waits": t.live & ~t.over,
            "state": t.state,
            "action": t.action,
            "reward": t.reward,
            "discount": t.discount,
        }
        return {"train/td_error": error}
