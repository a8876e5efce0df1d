"""N independent learners side by side: learner i plays and learns in env i, and in no other.

So one run of N envs is N runs at once, and its log knows how far they lie apart. Asked to decide
for another number of envs, as evaluation does, learner i mod N answers for env i.

Agents of agents/ say what a step teaches. The kernels they share stand below and are called from
Python, for numba's cache does not see when a kernel of another file changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete
from numba import njit

from rlplay.chance import Chance
from rlplay.core import Agent, Array, Mistake, Spec, State, Trajectory

FORGOTTEN = 1e-12
"""An eligibility trace below this no longer counts."""
MAX_STATES = 1_000_000
"""Up to so many states, a table has a row for each of them; beyond, for those that were visited."""
MAX_BYTES = 8e9
"""How large the tables of an agent may be, all together."""


class Learners(Agent):
    """What they all know is in `tables`: arrays [N, ...] by name, saved as the agent's weights.
    What else they keep in mind is in `memory`, likewise: such as the episodes under way."""

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
        self.chance = Chance()
        self.tables: dict[str, Array] = {}
        self.memory: dict[str, Array] = {}

    def learner(self, num_envs: int) -> Array:
        """Return who answers for each env, [num_envs] int64."""
        return np.arange(num_envs) % self.num_learners

    def by_env(self, table: Array, num_envs: int) -> Array:
        """Return the rows of `table` [N, ...] by env, [M, ...], as `learner` says; the table itself
        where there are as many envs as learners."""
        return table if num_envs == len(table) else table[self.learner(num_envs)]

    def make_tables(self, name: str, tables: Mapping[str, tuple[tuple[int, ...], float]]) -> None:
        """Make tables [N, ...] by name, of a shape [...] each and what fills it, whose type is that
        of the table. Raises Mistake where they do not fit, all together."""
        size = sum(
            self.num_learners * np.prod(shape, dtype=float) * np.asarray(fill).itemsize
            for shape, fill in tables.values()
        )
        if size > MAX_BYTES:
            widest = max((shape for shape, _ in tables.values()), key=np.prod)
            raise Mistake(
                f"{name}'s tables of up to {' x '.join(map(str, widest))} numbers, for each of"
                f" {self.num_learners} envs, need {size * 1e-9:.0f} GB; set env.num_envs lower"
            )
        for table, (shape, fill) in tables.items():
            self.tables[table] = np.full((self.num_learners, *shape), fill)

    def state_dict(self) -> State:
        own = {"generator": self.generator.bit_generator.state, "num_learners": self.num_learners}
        return {"weights": dict(self.tables), "agent": {**own, "memory": dict(self.memory)}}

    def load_state_dict(self, state: State) -> None:
        """Take over tables, memory and random numbers. Raises Mistake where there are more or fewer
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
        self.memory = {name: np.array(array) for name, array in own["memory"].items()}


class Transition(NamedTuple):
    """What each learner just went through, as kernels take it."""

    live: Array  # [N] bool, false where the action was ignored and only began an episode
    state: Array  # [N] int64, its row in the tables
    mask: Array  # [N, A] bool, what was legal there
    action: Array  # [N] int64
    reward: Array  # [N] float64
    discount: Array  # [N] float64, that of the agent; 0 where nothing more can be earned
    next_state: Array  # [N] int64, the row of where it led
    next_mask: Array  # [N, A] bool, what is legal there
    over: Array  # [N] bool, the episode ended there: terminated or cut short


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
        """Make `tables`, by name: their width (0 for one number a state) and what fills them, whose
        type is theirs. Raises Mistake where states are not discrete or the tables do not fit."""
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
        shapes = {
            table: ((num_rows, width) if width else (num_rows,), fill)
            for table, (width, fill) in tables.items()
        }
        self.make_tables(name, shapes)

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

    def transition(self, trajectory: Trajectory, discount: float) -> Transition:
        """Return the one transition of a trajectory with horizon 1."""
        step = trajectory.step
        live = ~step.done[0]
        return Transition(
            live=live,
            state=self.rows(step.observation[0]),
            mask=step.action_mask[0],
            action=trajectory.decision.action[0],
            reward=step.reward[1, :, 0].astype(np.float64),
            discount=discount * step.discount[1].astype(np.float64),
            next_state=self.rows(step.observation[1]),
            next_mask=step.action_mask[1],
            over=live & step.done[1],
        )

    def state_dict(self) -> State:
        state = dict(super().state_dict())
        state["agent"] = {**state["agent"], "states": np.array(list(self.row_of), np.int64)}
        return state

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.row_of = {code: row for row, code in enumerate(state["agent"]["states"].tolist())}


def remember(memory: dict[str, Array], live: Array, **now: Array) -> None:
    """Append one entry for every `live` [N] learner: `now` [N, ...] by name goes to memory[name]
    [N, L, ...] at `length` [N], and L doubles when it is full."""
    make_room(memory)
    who = np.flatnonzero(live)
    at = memory["length"][who]
    for name, array in now.items():
        memory[name][who, at] = array[who]
    memory["length"][who] += 1


def make_room(memory: dict[str, Array]) -> None:
    """Double L of all arrays [N, L, ...] when a learner's `length` [N] has come to it."""
    longest = memory["length"].max()
    for name, array in memory.items():
        if array.ndim > 1 and array.shape[1] <= longest:
            memory[name] = np.concatenate([array, np.zeros_like(array)], axis=1)


def best(value: Array, action_mask: Array) -> Array:  # [M, A], [M, A] bool -> [M] int64
    """Return the legal action of the highest value, the first of equals."""
    return np.where(action_mask, value, -np.inf).argmax(1)


@njit(cache=True, fastmath={"nnan", "nsz"})  # so that the maximum of a row is found all at once
def choose(value, action_mask, epsilon, generator):  # [M, A] float64, [M, A] bool -> [M] int64
    """Return the legal action of the highest value per row, ties broken at random, or with
    probability epsilon any legal one. It has next to no branches, for nobody can foretell which
    action is best: twice as fast as comparing one after another. Where values are not numbers the
    choice means nothing, but it is legal."""
    num_rows, num_actions = value.shape
    chosen = np.zeros(num_rows, np.int64)
    for i in range(num_rows):
        explores = epsilon > 0 and generator.random() < epsilon
        highest = -np.inf
        for a in range(num_actions):
            highest = max(highest, value[i, a] if action_mask[i, a] else -np.inf)
        action, ties = 0, 0
        for a in range(num_actions):
            is_highest = action_mask[i, a] & (value[i, a] == highest)
            ties += is_highest
            action += a if is_highest else 0
        if explores or ties != 1:
            action, ties, legal = -1, 0, 0
            for a in range(num_actions):
                if action_mask[i, a]:
                    legal = a
                    if explores or value[i, a] == highest:
                        ties += 1
                        if generator.random() * ties < 1:  # the k-th of equals is taken once in k
                            action = a
            action = action if action >= 0 else legal  # none is the highest of what is no number
        chosen[i] = action
    return chosen


@njit(cache=True)
def draw(policy, generator):  # [M, A] float64, each row summing to one -> [M] int64
    """Return an action drawn from each row of probabilities."""
    num_rows, num_actions = policy.shape
    chosen = np.zeros(num_rows, np.int64)
    for i in range(num_rows):
        left = generator.random()
        for a in range(num_actions):
            if left >= 0 and policy[i, a] > 0:  # rounding must not end on an impossible action
                chosen[i] = a
                left -= policy[i, a]
    return chosen


@njit(cache=True)
def soft(q_values, action_mask, epsilon):  # [M, A] float64, [M, A] bool -> [M, A] float64
    """Return the probabilities by which `choose` chooses."""
    policy = np.zeros(q_values.shape)
    for i in range(len(q_values)):
        best, num_best, num_legal = -np.inf, 0, 0
        for a in range(q_values.shape[1]):
            if action_mask[i, a]:
                num_legal += 1
                num_best = 1 if q_values[i, a] > best else num_best + (q_values[i, a] == best)
                best = max(best, q_values[i, a])
        for a in range(q_values.shape[1]):
            if action_mask[i, a]:
                greedy = (q_values[i, a] == best) / num_best
                policy[i, a] = (1 - epsilon) * greedy + epsilon / num_legal
    return policy


@njit(cache=True)
def expected(q, state, action_mask, epsilon):  # [N, R, A], [N], [N, A] bool -> [N] float64
    """Return what each learner expects of its state, acting epsilon-greedily on its own values;
    with epsilon 0 the highest value of a legal action."""
    values = np.empty(len(state))
    for i in range(len(state)):
        best, total, num_legal = -np.inf, 0.0, 0
        for a in range(q.shape[2]):
            if action_mask[i, a]:
                best = max(best, q[i, state[i], a])
                total += q[i, state[i], a]
                num_legal += 1
        values[i] = best if epsilon == 0 else (1 - epsilon) * best + epsilon * total / num_legal
    return values


@njit(cache=True)
def move(table, count, entry, target, live, step_size):  # [N, E], [N, E], [N], [N], [N] bool
    """Move an entry of each live learner's table towards its target, by step_size or, where that is
    0, such that it is the mean of all its targets; return the mean size of the errors."""
    total, num_live = 0.0, 0
    for i in range(len(entry)):
        if not live[i]:
            continue
        e = entry[i]
        count[i, e] += 1
        error = target[i] - table[i, e]
        table[i, e] += (step_size if step_size > 0 else 1 / count[i, e]) * error
        total += abs(error)
        num_live += 1
    return total / max(num_live, 1)


@njit(cache=True)
def learn_from_episodes(
    table, count, entry, reward, discount, length, over, last_value, first_visit, step_size
):
    """Move entries towards the returns that followed in the episodes that are over: table, count
    [N, E]; entry int64, reward, discount [N, L]; length int64, over bool and last_value [N], which
    is what is expected of where the episode was cut short."""
    for i in np.flatnonzero(over):
        returns = np.empty(length[i])
        g = last_value[i]
        for t in range(length[i] - 1, -1, -1):
            g = reward[i, t] + discount[i, t] * g
            returns[t] = g
        seen = np.zeros(table.shape[1], np.bool_)
        for t in range(length[i]):
            e = entry[i, t]
            if first_visit and seen[e]:
                continue
            seen[e] = True
            count[i, e] += 1
            size = step_size if step_size > 0 else 1 / count[i, e]
            table[i, e] += size * (returns[t] - table[i, e])


def space_in_words(spec: Spec) -> str:
    space = spec.observation_space
    if isinstance(space, Box) and len(space.shape) >= 3:
        return f"pictures of {' x '.join(map(str, space.shape))}"
    return str(space)
