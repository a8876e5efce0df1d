"""SARSA(lambda) with eligibility traces (Rummery & Niranjan 1994; Singh & Sutton 1996; Sutton &
Barto 2018, section 12.7), in tables.

    error = r + discount Q(s', a') - Q(s, a)
    Q(x, b) <- Q(x, b) + step_size error e(x, b)   for every x, b that was done in this episode
    e(x, b) <- discount lambda e(x, b)

When s, a is done its trace e(s, a) becomes e(s, a) + 1 (accumulating) or 1 (replacing). a' is what
the agent does in s', so each transition waits until that is decided. Where the episode is cut
short, what epsilon-greedy play expects of s' stands in for it. Lambda 0 is SARSA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numba import njit

from rlplay.core import Array, Range, Spec, Trajectory
from rlplay.learners import FORGOTTEN, make_room
from rlplay.values import ActionValues, Control


@dataclass(frozen=True)
class Config(Control):
    name: Literal["sarsa_lambda"] = "sarsa_lambda"
    trace_decay: Annotated[float, Range(0, 1)] = 0.9
    """Lambda: how much of its trace an action keeps with each step."""
    traces: Literal["accumulating", "replacing"] = "replacing"
    """What doing the same again does to the trace of an action."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> SarsaLambda:
        """Build the agent. Raises Mistake where states or actions are not discrete."""
        return SarsaLambda(self, spec, seed, learns)


class SarsaLambda(ActionValues):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config, spec, seed, learns)
        self.config = config
        self.cut()

    def cut(self) -> None:
        """Forget the transitions that wait, and every trace."""
        n = self.num_learners
        self.memory = {
            "length": np.zeros(n, np.int64),
            "pair": np.zeros((n, 16), np.int64),
            "trace": np.zeros((n, 16)),
            "waits": np.zeros(n, bool),
            "last": np.zeros(n, np.int64),
            "reward": np.zeros(n),
            "discount": np.zeros(n),
        }

    def learn(self, trajectory: Trajectory) -> dict[str, float | Array]:
        t, memory = self.transition(trajectory, self.config.discount), self.memory
        pair = t.state * self.num_actions + t.action
        value = self.tables["q"].reshape(self.num_learners, -1)[np.arange(self.num_learners), pair]
        target = memory["reward"] + memory["discount"] * value
        self.back_up(memory["last"], target, memory["discount"], memory["waits"])
        if t.over.any():
            target = t.reward + t.discount * self.expected(t, self.config.epsilon)
            self.back_up(pair, target, t.discount, t.over)
            memory["length"][t.over] = 0
        now = {"waits": t.live & ~t.over, "last": pair, "reward": t.reward, "discount": t.discount}
        memory.update(now)
        return {}

    def back_up(self, pair: Array, target: Array, discount: Array, live: Array) -> None:
        """Learn what `pair` [N], a state and action in one number, was worth, `target` [N], and let
        all that came before it share in that."""
        make_room(self.memory)
        back_up(
            self.tables["q"].reshape(self.num_learners, -1),
            self.tables["count"].reshape(self.num_learners, -1),
            self.memory["pair"],
            self.memory["trace"],
            self.memory["length"],
            pair,
            target,
            discount * self.config.trace_decay,
            live,
            self.config.step_size,
            self.config.traces == "replacing",
            FORGOTTEN,
        )


@njit(cache=True)
def back_up(
    q,  # [N, R * A]
    count,  # [N, R * A]
    pair,  # [N, L] int64, states and actions with a trace, each once
    trace,  # [N, L]
    length,  # [N] int64, how many have one
    now,  # [N] int64, state and action
    target,  # [N]
    decay,  # [N], discount times lambda
    live,  # [N] bool
    step_size,
    replacing,
    forgotten,
):
    for i in np.flatnonzero(live):
        error = target[i] - q[i, now[i]]
        count[i, now[i]] += 1

        k = 0
        while k < length[i] and pair[i, k] != now[i]:
            k += 1
        if k == length[i]:
            pair[i, k], trace[i, k] = now[i], 0.0
            length[i] += 1
        trace[i, k] = 1.0 if replacing else trace[i, k] + 1

        for k in range(length[i] - 1, -1, -1):
            x = pair[i, k]
            size = step_size if step_size > 0 else 1 / count[i, x]
            q[i, x] += size * error * trace[i, k]
            trace[i, k] *= decay[i]
            if trace[i, k] < forgotten:
                length[i] -= 1
                pair[i, k], trace[i, k] = pair[i, length[i]], trace[i, length[i]]
