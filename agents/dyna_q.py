"""Dyna-Q and Dyna-Q+ (Sutton 1990; Sutton & Barto 2018, sections 8.2 and 8.3), in tables.

Each step teaches twice. As in Q-learning, directly:

    Q(s, a) <- Q(s, a) + step_size (r + discount max_b Q(s', b) - Q(s, a))

And through a model, which holds what last came of each action: then the same is done for
`planning_steps` pairs of a state seen and an action tried there, drawn at random, with the r and s'
that the model recalls. The model takes the world to be deterministic.

Dyna-Q+ plans with r + kappa sqrt(tau), tau the steps since the action was last tried in that state,
and plans with untried actions too, of which it supposes that they earn 0 and change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numba import njit

from rlplay.core import Array, Range, Spec, Trajectory
from rlplay.values import ActionValues, Control


@dataclass(frozen=True)
class Config(Control):
    name: Literal["dyna_q"] = "dyna_q"
    planning_steps: Annotated[int, Range(0, 1_000_000)] = 10
    """Recalled transitions that are learned from after each real one."""
    kappa: Annotated[float, Range(0)] = 0.0
    """Dyna-Q+: how much is expected of what was not tried for long; 0 for Dyna-Q."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> DynaQ:
        """Build the agent. Raises Mistake where states or actions are not discrete."""
        return DynaQ(self, spec, seed, learns)


class DynaQ(ActionValues):
    """Tables of the model: `mask` [N, R, A] bool, `next_state` [N, R, A] int64, -1 where untried,
    `reward` and `discount` [N, R, A], `tried` [N, R, A] int64, when it was last done, and `seen`
    [N, R] int64, states in the order in which they were first left. `time` and `num_seen` [N] count
    each learner's steps and states."""

    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        a = spec.num_actions
        tables = {
            "mask": (a, False),
            "next_state": (a, -1),
            "reward": (a, 0.0),
            "discount": (a, 0.0),
            "tried": (a, 0),
            "seen": (0, -1),
        }
        super().__init__(config, spec, seed, learns, tables)
        self.config = config
        self.memory = {
            "time": np.zeros(self.num_learners, np.int64),
            "num_seen": np.zeros(self.num_learners, np.int64),
        }

    def learn(self, trajectory: Trajectory) -> dict[str, float | Array]:
        config, tables = self.config, self.tables
        t = self.transition(trajectory, config.discount)
        target = t.reward + t.discount * self.expected(t, epsilon=0.0)
        error = self.move(t.state, t.action, target, t.live)
        model = (tables["mask"], tables["next_state"], tables["reward"], tables["discount"])
        dates = (tables["tried"], tables["seen"], self.memory["time"], self.memory["num_seen"])
        observe(*model, *dates, t)
        plan(
            tables["q"],
            tables["count"],
            *model,
            *dates,
            t.live,
            config.planning_steps,
            config.step_size,
            config.discount,
            config.kappa,
            self.generator,
        )
        return {"train/td_error": error}


@njit(cache=True)
def observe(mask, next_state, reward, discount, tried, seen, time, num_seen, t):
    """Note in each learner's model what it just went through."""
    for i in np.flatnonzero(t.live):
        s, a, next_s = t.state[i], t.action[i], t.next_state[i]
        if (next_state[i, s] < 0).all():
            seen[i, num_seen[i]] = s
            num_seen[i] += 1
        time[i] += 1
        mask[i, s], mask[i, next_s] = t.mask[i], t.next_mask[i]
        next_state[i, s, a], reward[i, s, a], discount[i, s, a] = next_s, t.reward[i], t.discount[i]
        tried[i, s, a] = time[i]


@njit(cache=True)
def plan(
    q,
    count,
    mask,
    next_state,
    reward,
    discount,
    tried,
    seen,
    time,
    num_seen,
    live,
    num_steps,
    step_size,
    supposed_discount,
    kappa,
    generator,
):
    """Learn from `num_steps` recalled transitions per live learner: q and count [N, R, A], the
    model as in DynaQ."""
    for i in np.flatnonzero(live):
        for _ in range(num_steps):
            s = seen[i, int(generator.random() * num_seen[i])]
            a, num_candidates = 0, 0
            for b in range(q.shape[2]):
                if next_state[i, s, b] >= 0 or (kappa > 0 and mask[i, s, b]):
                    num_candidates += 1
                    if generator.random() * num_candidates < 1:  # one of k, each as likely
                        a = b
            next_s, r, d = s, 0.0, supposed_discount
            if next_state[i, s, a] >= 0:
                next_s, r, d = next_state[i, s, a], reward[i, s, a], discount[i, s, a]
            r += kappa * np.sqrt(time[i] - tried[i, s, a])
            best = -np.inf
            for b in range(q.shape[2]):
                if mask[i, next_s, b]:
                    best = max(best, q[i, next_s, b])
            size = step_size if step_size > 0 else 1 / max(count[i, s, a], 1.0)
            q[i, s, a] += size * (r + d * best - q[i, s, a])
