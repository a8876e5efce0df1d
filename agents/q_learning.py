"""Q-learning (Watkins 1989), in tables.

Q(s, a) <- Q(s, a) + step_size (r + discount max_b Q(s', b) - Q(s, a))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit

from rlplay.core import Decision, Spec, Step, Trajectory
from rlplay.learners import Control, Tabular, epsilon_greedy


@dataclass(frozen=True)
class Config(Control):
    name: Literal["q_learning"] = "q_learning"

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> QLearning:
        """Build the agent. Raises Mistake where states or actions are not discrete."""
        return QLearning(self, spec, seed, learns)


class QLearning(Tabular):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        tables = {"q": (spec.num_actions, config.initial_value), "count": (spec.num_actions, 0.0)}
        super().__init__(config.name, spec, seed, learns, tables)
        self.config = config

    def act(self, step: Step, explore: bool = True) -> Decision:
        q_values = self.known("q", step.observation)
        generator = self.generator if explore else None
        return epsilon_greedy(q_values, step.action_mask, self.config.epsilon, generator)

    def learn(self, trajectory: Trajectory) -> dict[str, float]:
        step, config = trajectory.step, self.config
        state, following = self.rows(step.observation[0]), self.rows(step.observation[1])
        error = update(
            self.tables["q"],
            self.tables["count"],
            state,
            trajectory.decision.action[0],
            step.reward[1, :, 0],
            config.discount * step.discount[1],
            following,
            step.action_mask[1],
            ~step.done[0],
            config.step_size,
        )
        return {"train/td_error": error}


@njit(cache=True)
def update(q, count, state, action, reward, discount, following, legal, live, step_size):
    """Learn from one transition per env: q, count [N, R, A], legal [N, A] bool, the others [N];
    return the mean size of the errors."""
    total = 0.0
    for i in range(len(state)):
        if not live[i]:  # the action after the end of an episode began a new one
            continue
        best = -np.inf
        for b in range(q.shape[2]):
            if legal[i, b]:
                best = max(best, q[i, following[i], b])
        s, a = state[i], action[i]
        count[i, s, a] += 1
        size = step_size if step_size > 0 else 1 / count[i, s, a]
        error = reward[i] + discount[i] * best - q[i, s, a]
        q[i, s, a] += size * error
        total += abs(error)
    return total / len(state)
