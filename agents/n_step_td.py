"""n-step TD prediction (Watkins 1989; Sutton & Barto 2018, section 7.1): what states are worth
under a given policy, in tables.

G = r_{t+1} + discount r_{t+2} + ... + discount^n V(s_{t+n})
V(s_t) <- V(s_t) + step_size (G - V(s_t))

Where an episode ends, the states that still wait get what was earned until then, plus the value of
the last state if it was cut short. n = 1 is TD(0), and n beyond every episode is Monte-Carlo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numba import njit

from rlplay.core import Array, Range, Spec, Trajectory
from rlplay.values import Prediction, StateValues


@dataclass(frozen=True)
class Config(Prediction):
    name: Literal["n_step_td"] = "n_step_td"
    step_size: Annotated[float, Range(0, 1)] = 0.1
    """How far an estimate moves towards its target; 0 for one over the number of visits."""
    n_step: Annotated[int, Range(1, 100_000)] = 4
    """Rewards that are seen before a state is learned of: n."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> NStepTD:
        """Build the agent. Raises Mistake where states or actions are not discrete, and where there
        is no such policy."""
        return NStepTD(self, spec, seed, learns)


class NStepTD(StateValues):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config, spec, seed, learns)
        self.config = config
        self.cut()

    def cut(self) -> None:
        """Forget the transitions that wait."""
        n, shape = self.num_learners, (self.num_learners, self.config.n_step)
        self.memory = {
            "length": np.zeros(n, np.int64),
            "oldest": np.zeros(n, np.int64),
            "state": np.zeros(shape, np.int64),
            "reward": np.zeros(shape),
            "discount": np.zeros(shape),
        }

    def learn(self, trajectory: Trajectory) -> dict[str, float | Array]:
        t, memory = self.transition(trajectory, self.config.discount), self.memory
        update(
            self.tables["value"],
            self.tables["count"],
            memory["state"],
            memory["reward"],
            memory["discount"],
            memory["oldest"],
            memory["length"],
            t,
            self.config.step_size,
        )
        return self.error(t.over)


@njit(cache=True)
def update(value, count, state, reward, discount, oldest, length, now, step_size):
    """Add a transition to those that wait, and learn from what need not wait longer: value, count
    [N, R]; state, reward, discount [N, n] as rings, oldest first; oldest, length [N]."""
    num_steps = state.shape[1]
    returns = np.empty(num_steps)
    for i in np.flatnonzero(now.live):
        k = (oldest[i] + length[i]) % num_steps
        state[i, k], reward[i, k], discount[i, k] = now.state[i], now.reward[i], now.discount[i]
        length[i] += 1
        if length[i] < num_steps and not now.over[i]:
            continue
        g = value[i, now.next_state[i]]
        for t in range(length[i] - 1, -1, -1):
            k = (oldest[i] + t) % num_steps
            g = reward[i, k] + discount[i, k] * g
            returns[t] = g
        num_ready = length[i] if now.over[i] else 1
        for t in range(num_ready):
            s = state[i, oldest[i]]
            count[i, s] += 1
            size = step_size if step_size > 0 else 1 / count[i, s]
            value[i, s] += size * (returns[t] - value[i, s])
            oldest[i] = (oldest[i] + 1) % num_steps
            length[i] -= 1
