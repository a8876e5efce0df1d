"""N independent learners side by side: learner i plays and learns in env i, and in no other.

So one run of N envs is N runs at once, and its log knows how far they lie apart. Asked to decide
for another number of envs, as evaluation does, learner i mod N answers for env i.

Agents of agents/ say what a step teaches. The kernels they share stand below and are called from
Python, for numba's cache does not see when a kernel of another file changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete
from numba import njit

from rlplay.core import Agent, Array, Decision, Mistake, Range, Spec, State, Step, Trajectory
from rlplay.model import Model

MAX_STATES = 1_000_000
"""Up to so many states, a table has a row for each of them; beyond, for those that were visited."""


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
        self.tables: dict[str, Array] = {}
        self.memory: dict[str, Array] = {}

    def learner(self, num_envs: int) -> Array:
        """Return who answers for each env, [num_envs] int64."""
        return np.arange(num_envs) % self.num_learners

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
        for table, (width, fill) in tables.items():
            shape = (self.num_learners, num_rows, width) if width else (self.num_learners, num_rows)
            if np.prod(shape, dtype=float) * 8 > 8e9:
                raise Mistake(
                    f"{name}'s table {shape} for envs, states and actions needs"
                    f" {np.prod(shape, dtype=float) * 8e-9:.0f} GB; set env.num_envs lower"
                )
            self.tables[table] = np.full(shape, fill)  # whose type is that of the table

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


@dataclass(frozen=True)
class Control:
    """Settings of the agents that learn action values in tables while they play."""

    name: str = ""
    discount: Annotated[float, Range(0, 1)] = 1.0
    """What a reward one step later is worth."""
    step_size: Annotated[float, Range(0, 1)] = 0.1
    """How far an estimate moves towards its target; 0 for one over the number of visits."""
    epsilon: Annotated[float, Range(0, 1)] = 0.1
    """Share of random actions while learning."""
    initial_value: float = 0.0
    """What every action is believed to be worth before it is tried."""


class ActionValues(Tabular):
    """Learners of what actions are worth, who play epsilon-greedily by it. Tables: `q` [N, R, A],
    `count` [N, R, A] float64, how often each action was learned of, and `tables` of their own."""

    def __init__(
        self,
        config: Control,
        spec: Spec,
        seed: int,
        learns: bool,
        tables: Mapping[str, tuple[int, float]] | None = None,
    ) -> None:
        a = spec.num_actions
        own = {"q": (a, float(config.initial_value)), "count": (a, 0.0)}
        super().__init__(config.name, spec, seed, learns, {**own, **(tables or {})})
        self.settings = config

    def act(self, step: Step, explore: bool = True) -> Decision:
        """Take the best legal action, ties broken at random, or with probability epsilon any legal
        one. Without `explore`: always the first of the best."""
        q_values = self.known("q", step.observation)
        if explore:
            action = choose(q_values, step.action_mask, self.settings.epsilon, self.generator)
        else:
            action = np.where(step.action_mask, q_values, -np.inf).argmax(1)
        return Decision(action, {"q_values": q_values})

    def expected(self, t: Transition, epsilon: float) -> Array:
        """Return what each learner expects of where it came to, [N] float64, if it acts
        epsilon-greedily there."""
        return expected(self.tables["q"], t.next_state, t.next_mask, epsilon)

    def move(self, state: Array, action: Array, target: Array, live: Array) -> float:
        """Move what action [N] in state [N] is worth towards its target [N] float64, where `live`
        [N] bool; return the mean size of the errors."""
        q, count = (self.tables[name].reshape(self.num_learners, -1) for name in ("q", "count"))
        entry = state * self.num_actions + action
        return move(q, count, entry, target, live, self.settings.step_size)


@dataclass(frozen=True)
class Prediction:
    """Settings of the agents that learn what states are worth under a given policy."""

    name: str = ""
    policy: str = "uniform"
    """The policy to evaluate: uniform, optimal (where the world has a model), one that goes with
    the world, such as Blackjack's stick_on_20, or a .npy file of probabilities [S, A]."""
    discount: Annotated[float, Range(0, 1)] = 1.0
    """What a reward one step later is worth."""
    initial_value: float = 0.0
    """What every state is believed to be worth before it is visited."""


class StateValues(Tabular):
    """Learners of what states are worth under a policy, which they follow. Tables: `value` [N, R]
    and `count` [N, R] float64, how often each state was learned of."""

    def __init__(self, config: Prediction, spec: Spec, seed: int, learns: bool) -> None:
        tables = {"value": (0, float(config.initial_value)), "count": (0, 0.0)}
        super().__init__(config.name, spec, seed, learns, tables)
        from rlplay import planning  # slow to import, and control does without

        self.settings = config
        self.policy: Array | None = None  # [S, A]; uniform needs no table
        if config.policy != "uniform":
            self.policy = planning.policy_of(spec, config.policy, config.discount)
        self.exact: Array | None = None  # [S] float64, the true values where a model gives them
        if isinstance(spec.model, Model) and learns:
            model, policy = spec.model, self.policy
            if policy is None:
                policy = planning.equal_chances(model.action_mask)
            self.exact = planning.policy_values(model, policy, config.discount)
            self.visited = np.flatnonzero(visited(model, policy))  # by the policy, sooner or later
        self.rehearsal: np.random.Generator | None = None

    def probabilities(self, step: Step) -> Array:
        """Return how likely the evaluated policy takes each action, [M, A] float64: as its table
        says of the legal ones, and any legal one where it says nothing of them."""
        mask = step.action_mask.astype(np.float64)
        if self.policy is None:
            return mask / mask.sum(1, keepdims=True)
        policy = mask * self.policy[step.observation]
        policy = np.where(policy.any(1, keepdims=True), policy, mask)
        return policy / policy.sum(1, keepdims=True)

    def act(self, step: Step, explore: bool = True) -> Decision:
        """Follow the policy; it is the same with and without `explore`."""
        policy = self.probabilities(step)
        action = draw(policy, self.randomness(explore))
        return Decision(action, {"value": self.known("value", step.observation), "policy": policy})

    def randomness(self, explore: bool) -> np.random.Generator:
        """Return where to draw actions from: without `explore`, from random numbers that are the
        same in every evaluation, so that it leaves no trace in what is learned afterwards."""
        if explore:
            self.rehearsal = None
            return self.generator
        self.rehearsal = self.rehearsal or np.random.default_rng([*b"rehearsal"])
        return self.rehearsal

    def error(self, over: Array) -> dict[str, float | Array]:
        """Return the root mean squared error of each learner, [N] float64, over the states that the
        policy visits, where the true values are known; in large worlds only where an episode was
        just `over`, for it takes a look at every state."""
        if self.exact is None or (self.num_learners * len(self.visited) > 1e5 and not over.any()):
            return {}
        return {"train/rms_error": rms_error(self.tables["value"], self.exact, self.visited)}


def visited(model: Model, policy: Array) -> Array:  # [S, A] -> [S] bool
    """Return the states where the policy ever decides, from the start of a model's episodes."""
    state = model.pair // model.num_actions  # [K] of each transition
    taken = (policy.reshape(-1)[model.pair] > 0) & (model.continuing > 0)
    reached, num_before = model.start > 0, 0
    while reached.sum() > num_before:
        num_before = reached.sum()
        reached[model.next_state[taken & reached[state]]] = True
    return reached & ~model.terminal


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
def rms_error(value, exact, states):  # [N, S], [S], [Z] int64 -> [N] float64
    """Return each learner's root mean squared error over some states."""
    error = np.zeros(len(value))
    for i in range(len(value)):
        for s in states:
            error[i] += (value[i, s] - exact[s]) ** 2
        error[i] = np.sqrt(error[i] / max(len(states), 1))
    return error


def space_in_words(spec: Spec) -> str:
    space = spec.observation_space
    if isinstance(space, Box) and len(space.shape) >= 3:
        return f"pictures of {' x '.join(map(str, space.shape))}"
    return str(space)
