"""N independent learners side by side: learner i plays and learns in env i, and in no other.

So one run of N envs is N runs at once, and its log knows how far they lie apart. Asked to decide
for another number of envs, as evaluation does, learner i mod N answers for env i.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from gymnasium.spaces import Box, Discrete
from numba import njit

from rlplay.core import Agent, Array, Decision, Mistake, Range, Spec, State

MAX_STATES = 1_000_000
"""Up to so many states, a table has a row for each of them; beyond, for those that were visited."""


class Learners(Agent):
    """What they all know is in `tables`: arrays [N, ...] by name, saved as the agent's weights."""

    def __init__(self, name: str, spec: Spec, seed: int, learns: bool) -> None:
        if not spec.num_actions:
            raise Mistake(f"{name} needs a finite set of actions, not {spec.action_space}")
        if spec.num_players != 1:
            raise Mistake(f"{name} plays alone, and this world has {spec.num_players} players")
        self.num_learners = spec.num_envs
        self.num_actions = spec.num_actions
        self.learns = learns
        # Named, so that it never repeats the random numbers of an env with the same seed.
        self.generator = np.random.default_rng([*name.encode(), seed])
        self.tables: dict[str, Array] = {}

    def learner(self, num_envs: int) -> Array:
        """Return who answers for each env, [num_envs] int64."""
        return np.arange(num_envs) % self.num_learners

    def state_dict(self) -> State:
        own = {"generator": self.generator.bit_generator.state, "num_learners": self.num_learners}
        return {"weights": dict(self.tables), "agent": own}

    def load_state_dict(self, state: State) -> None:
        """Take over tables and random numbers. Raises Mistake where there are more or fewer
        learners than envs to learn in."""
        own = state["agent"]
        if self.learns and own["num_learners"] != self.num_learners:
            raise Mistake(
                f"the run was saved with {own['num_learners']} learners, one for each env:"
                f" set env.num_envs={own['num_learners']}"
            )
        self.num_learners = own["num_learners"]
        self.generator.bit_generator.state = own["generator"]
        self.tables = {name: np.array(table) for name, table in state["weights"].items()}


class Tabular(Learners):
    """Learners with a value, or several, for each discrete state. Tables are [N, R, ...] with a row
    for each state, or, where there are more than MAX_STATES, for each state visited so far."""

    def __init__(
        self,
        name: str,
        spec: Spec,
        seed: int,
        learns: bool,
        tables: Mapping[str, tuple[int, float]],
    ) -> None:
        """Make `tables`, by name: their width (0 for one number a state) and what fills them.
        Raises Mistake where states are not discrete or the tables do not fit."""
        super().__init__(name, spec, seed, learns)
        if not isinstance(spec.observation_space, Discrete):
            raise Mistake(
                f"{name} keeps a table of discrete states, and this world shows"
                f" {space_in_words(spec)}; choose an agent with a network, such as dqn"
            )
        self.num_states = int(spec.observation_space.n)
        self.enumerated = self.num_states <= MAX_STATES
        self.row_of: dict[int, int] = {}
        self.fills = {table: fill for table, (_, fill) in tables.items()}
        num_rows = self.num_states if self.enumerated else 1024
        for table, (width, fill) in tables.items():
            shape = (self.num_learners, num_rows, width) if width else (self.num_learners, num_rows)
            if np.prod(shape, dtype=float) * 8 > 8e9:
                raise Mistake(
                    f"{name}'s table {shape} for envs, states and actions needs"
                    f" {np.prod(shape, dtype=float) * 8e-9:.0f} GB; set env.num_envs lower"
                )
            self.tables[table] = np.full(shape, fill)

    def rows(self, observation: Array, grow: bool = True) -> Array:
        """Return the row of each state [M] as int64 [M]. A state that has none is given one, or -1
        if not to `grow`."""
        if self.enumerated:
            return observation
        codes = observation.tolist()
        if not grow:
            return np.array([self.row_of.get(code, -1) for code in codes])
        rows = np.array([self.row_of.setdefault(code, len(self.row_of)) for code in codes])
        for name, table in self.tables.items():
            if len(self.row_of) > table.shape[1]:
                widths = [(0, 0)] * table.ndim
                widths[1] = (0, max(table.shape[1], len(self.row_of)))
                self.tables[name] = np.pad(table, widths, constant_values=self.fills[name])
        return rows

    def known(self, name: str, observation: Array) -> Array:
        """Return what table `name` says of states [M], each as its learner knows it: [M, ...]."""
        rows = self.rows(observation, grow=False)
        entries = self.tables[name][self.learner(len(rows)), rows]
        if not self.enumerated:
            entries[rows < 0] = self.fills[name]
        return entries

    def state_dict(self) -> State:
        state = dict(super().state_dict())
        state["agent"] = {**state["agent"], "states": np.array(list(self.row_of), np.int64)}
        return state

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.row_of = {code: row for row, code in enumerate(state["agent"]["states"].tolist())}


@dataclass(frozen=True)
class Control:
    """Settings of the agents that learn action values in tables while they play."""

    discount: Annotated[float, Range(0, 1)] = 1.0
    """What a reward one step later is worth."""
    step_size: Annotated[float, Range(0, 1)] = 0.1
    """How far an estimate moves towards its target; 0 for one over the number of visits."""
    epsilon: Annotated[float, Range(0, 1)] = 0.1
    """Share of random actions while learning."""
    initial_value: float = 0.0
    """What every action is believed to be worth before it is tried."""


def epsilon_greedy(
    q_values: Array, action_mask: Array, epsilon: float, generator: np.random.Generator | None
) -> Decision:
    """Return the best legal actions by `q_values` [M, A], ties broken at random, or with
    probability epsilon any legal one. Without a generator: always the first of the best."""
    if generator is None:
        action = np.where(action_mask, q_values, -np.inf).argmax(1)
    else:
        action = choose(q_values, action_mask, epsilon, generator)
    return Decision(action, {"q_values": q_values})


@njit(cache=True)
def choose(index, action_mask, epsilon, generator):  # [M, A] float64, [M, A] bool -> [M] int64
    """Return the legal action of the highest index per row, ties broken at random, or with
    probability epsilon any legal one."""
    num_rows, num_actions = index.shape
    chosen = np.zeros(num_rows, np.int64)
    for i in range(num_rows):
        explores = epsilon > 0 and generator.random() < epsilon
        best, ties = -np.inf, 0
        for a in range(num_actions):
            if not action_mask[i, a]:
                continue
            value = 0.0 if explores else index[i, a]
            if ties == 0 or value > best:
                best, ties, chosen[i] = value, 1, a
            elif value == best:
                ties += 1
                if generator.random() * ties < 1:  # the k-th of equals is taken once in k
                    chosen[i] = a
    return chosen


def space_in_words(spec: Spec) -> str:
    space = spec.observation_space
    if isinstance(space, Box) and len(space.shape) >= 3:
        return f"pictures of {' x '.join(map(str, space.shape))}"
    return str(space)
