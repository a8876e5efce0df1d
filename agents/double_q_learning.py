"""Double Q-learning (van Hasselt 2010; Sutton & Barto 2018, section 6.7), in tables.

With probability one half, and else with Q1 and Q2 in each other's place:

    Q1(s, a) <- Q1(s, a) + step_size (r + discount Q2(s', argmax_b Q1(s', b)) - Q1(s, a))

One table chooses and the other judges, so that what is overrated by chance in one is not believed
at once. The agent acts on the mean of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit

from rlplay.core import Array, Spec, Trajectory
from rlplay.values import ActionValues, Control


@dataclass(frozen=True)
class Config(Control):
    name: Literal["double_q_learning"] = "double_q_learning"

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> DoubleQLearning:
        """Build the agent. Raises Mistake where states or actions are not discrete."""
        return DoubleQLearning(self, spec, seed, learns)


class DoubleQLearning(ActionValues):
    """Tables besides `q`, the mean of the two, and `count`, the sum: `q1`, `q2`, `count1` and
    `count2` [N, R, A]."""

    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        a = spec.num_actions
        values = {name: (a, float(config.initial_value)) for name in ("q1", "q2")}
        counts = {name: (a, 0.0) for name in ("count1", "count2")}
        super().__init__(config, spec, seed, learns, {**values, **counts})

    def learn(self, trajectory: Trajectory) -> dict[str, float | Array]:
        t, tables = self.transition(trajectory, self.settings.discount), self.tables
        error = update(
            (tables["q"], tables["count"]),
            (tables["q1"], tables["q2"]),
            (tables["count1"], tables["count2"]),
            t,
            self.generator.integers(2, size=self.num_learners),
            self.settings.step_size,
        )
        return {"train/td_error": error}


@njit(cache=True)
def update(both, q, count, t, coin, step_size):
    """Learn from one transition per learner in the table that its coin [N] says: both is the
    mean of q and the sum of count, which are pairs of [N, R, A]; return the mean size of errors."""
    total = 0.0
    for i in np.flatnonzero(t.live):
        s, a, next_s = t.state[i], t.action[i], t.next_state[i]
        chooser, judge = q[coin[i]], q[1 - coin[i]]
        best = -1
        for b in range(chooser.shape[2]):
            if t.next_mask[i, b] and (best < 0 or chooser[i, next_s, b] > chooser[i, next_s, best]):
                best = b
        error = t.reward[i] + t.discount[i] * judge[i, next_s, best] - chooser[i, s, a]
        count[coin[i]][i, s, a] += 1
        chooser[i, s, a] += error * (step_size if step_size > 0 else 1 / count[coin[i]][i, s, a])
        both[0][i, s, a] = (q[0][i, s, a] + q[1][i, s, a]) / 2
        both[1][i, s, a] = count[0][i, s, a] + count[1][i, s, a]
        total += abs(error)
    return total / max(t.live.sum(), 1)
