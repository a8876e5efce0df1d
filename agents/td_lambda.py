"""TD(lambda) prediction with eligibility traces (Sutton 1988; Sutton & Barto 2018, chapter 12):
what states are worth under a given policy, in tables.

    error = r + discount V(s') - V(s)
    V(x) <- V(x) + step_size error e(x)   for every x visited in this episode
    e(x) <- discount lambda e(x)

On a visit to s its trace e(s) becomes e(s) + 1 (accumulating), 1 (replacing, Singh
& Sutton 1996) or (1 - step_size) e(s) + 1 (dutch, with the corrections of true online TD(lambda),
van Seijen et al. 2016). Lambda 0 is TD(0).

Offline, the changes of an episode are summed and made when it is over: then accumulating traces
with lambda 1 are every-visit Monte-Carlo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numba import njit

from rlplay.core import Array, Mistake, Range, Spec, Trajectory
from rlplay.learners import FORGOTTEN, make_room
from rlplay.values import Prediction, StateValues


@dataclass(frozen=True)
class Config(Prediction):
    name: Literal["td_lambda"] = "td_lambda"
    step_size: Annotated[float, Range(0, 1)] = 0.1
    """How far an estimate moves towards its target; 0 for one over the number of visits."""
    trace_decay: Annotated[float, Range(0, 1)] = 0.9
    """Lambda: how much of its trace a state keeps with each step."""
    traces: Literal["accumulating", "replacing", "dutch"] = "accumulating"
    """What another visit does to the trace of a state."""
    update: Literal["online", "offline"] = "online"
    """When values change: at once, or when the episode is over."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> TDLambda:
        """Build the agent. Raises Mistake where states or actions are not discrete, where there is
        no such policy, and for settings that do not go together."""
        if self.traces == "dutch" and self.update == "offline":
            raise Mistake("dutch traces are for learning online: set agent.update=online")
        if self.traces == "dutch" and not self.step_size:
            raise Mistake("dutch traces need a constant step size, such as agent.step_size=0.1")
        return TDLambda(self, spec, seed, learns)


class TDLambda(StateValues):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config, spec, seed, learns)
        self.config = config
        self.cut()

    def cut(self) -> None:
        """Forget the episodes under way: every trace, and every change not made yet."""
        n = self.num_learners
        self.memory = {
            "length": np.zeros(n, np.int64),
            "state": np.zeros((n, 16), np.int64),
            "trace": np.zeros((n, 16)),
            "change": np.zeros((n, 16)),
            "before": np.zeros(n),
        }

    def learn(self, trajectory: Trajectory) -> dict[str, float | Array]:
        config, memory = self.config, self.memory
        t = self.transition(trajectory, config.discount)
        make_room(memory)
        error = update(
            self.tables["value"],
            self.tables["count"],
            memory["state"],
            memory["trace"],
            memory["change"],
            memory["length"],
            memory["before"],
            t,
            config.step_size,
            config.trace_decay,
            config.traces == "replacing",
            config.traces == "dutch",
            config.update == "offline",
            FORGOTTEN,
        )
        return {"train/td_error": error, **self.error(t.over)}


@njit(cache=True)
def update(
    value,  # [N, R]
    count,  # [N, R]
    state,  # [N, L] int64, the states with a trace, each once
    trace,  # [N, L]
    change,  # [N, L], what is to be added offline, over the step size
    length,  # [N] int64, how many have one
    before,  # [N], for dutch traces: what the state was worth before the last update
    now,
    step_size,
    trace_decay,
    replacing,
    dutch,
    offline,
    forgotten,
):
    """Learn from one transition per learner; return the mean size of the errors."""
    total = 0.0
    for i in np.flatnonzero(now.live):
        s = now.state[i]
        worth, next_worth = value[i, s], value[i, now.next_state[i]]
        error = now.reward[i] + now.discount[i] * next_worth - worth
        total += abs(error)
        count[i, s] += 1

        since = worth - before[i] if dutch and length[i] > 0 else 0.0  # what the last update did
        before[i] = next_worth

        k = 0
        while k < length[i] and state[i, k] != s:
            k += 1
        if k == length[i]:
            state[i, k], trace[i, k], change[i, k] = s, 0.0, 0.0
            length[i] += 1
        kept = 0.0 if replacing else 1 - step_size if dutch else 1.0
        trace[i, k] = kept * trace[i, k] + 1

        for k in range(length[i]):
            x = state[i, k]
            size = step_size if step_size > 0 else 1 / count[i, x]
            if offline:
                change[i, k] += error * trace[i, k]
                if now.over[i]:
                    value[i, x] += size * change[i, k]
            else:
                value[i, x] += size * (error + since) * trace[i, k]
        value[i, s] -= step_size * since

        for k in range(length[i] - 1, -1, -1):
            trace[i, k] *= now.discount[i] * trace_decay
            if trace[i, k] < forgotten and not offline:
                length[i] -= 1
                state[i, k], trace[i, k] = state[i, length[i]], trace[i, length[i]]
        if now.over[i]:
            length[i] = 0
    return total / max(now.live.sum(), 1)
