"""A model becomes an env: N copies of a finite world side by side, each step drawn from its tables.

So what an agent lives through is, by construction, what a planner reckons with. Knows no map, no
cards and no cars: worlds in envs/ bring their tables and, to be watched, a function that draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
from gymnasium.spaces import Discrete
from numba import njit

from rlplay.core import Array, Layout, Mistake, Spec, State, Step, check_action
from rlplay.model import Model


class MarkovEnv:
    """N copies of a model. Observations are states, [N] int64.

    Arriving where no action is legal ends an episode, as does a transition that the model calls
    terminated. `max_steps` (0 for none) cuts an episode short. `draw`, where given, makes a picture
    [H, W, 3] uint8 of the states that env 0 has been through in this episode, oldest first.
    Raises Mistake where an episode could begin in a terminal state.
    """

    def __init__(
        self,
        model: Model,
        num_envs: int,
        *,
        max_steps: int = 0,
        action_names: tuple[str, ...] = (),
        layout: Layout | None = None,
        policies: Mapping[str, Array] | None = None,
        frame_rate: float = 5.0,
        draw: Callable[[list[int]], Array] | None = None,
    ) -> None:
        if model.start[model.terminal].any():
            state = int(np.flatnonzero(model.terminal & (model.start > 0))[0])
            raise Mistake(f"an episode cannot begin in state {state}, where it is over at once")
        self.spec = Spec(
            num_envs=num_envs,
            observation_space=Discrete(model.num_states),
            action_space=Discrete(model.num_actions),
            frame_rate=frame_rate,
            action_names=action_names,
            exact_resume=True,
            model=model,
            layout=layout,
            policies=policies or {},
        )
        self.model = model
        self.max_steps = max_steps
        self.draw = draw
        self.generator = np.random.default_rng(0)
        self.path: list[int] = []  # of env 0, where someone watches
        self.step_now: Step | None = None
        self.time = np.zeros(num_envs, np.int64)  # [N], steps taken in this episode
        self._legal = model.action_mask | model.terminal[:, None]  # [S, A], as steps show it
        self._ends = model.terminated | model.terminal[model.next_state]  # [K]
        self._start = cumulative(np.array([0, model.num_states]), model.start)  # [S]

    @cached_property
    def _sums(self) -> Array:  # [K]
        return cumulative(self.model.offsets, self.model.probability)

    def reset(self, seed: int) -> Step:
        self.generator = np.random.default_rng(seed)
        n = self.spec.num_envs
        self.time = np.zeros(n, np.int64)
        self.path = []
        return self._show(self._begin(n), np.zeros(n, np.float32), np.zeros(n, bool))

    def step(self, action: Array) -> Step:
        """Apply `action` [N]. Raises ValueError where one is out of range or illegal."""
        action = check_action(action, self.spec)
        standing = self._standing()
        begins, state = standing.done, standing.observation
        pair = state * self.spec.num_actions + action
        if not (legal := self._legal.take(pair) | begins).all():
            i = int(np.argmin(legal))
            raise ValueError(
                f"actions must be legal, and {action[i]} is not in state {state[i]} of env {i}"
            )
        arrived, reward, terminated = self.follow(state, action, begins)
        self.time = np.where(begins, 0, self.time + 1)
        if begins.any():
            arrived[begins] = self._begin(int(begins.sum()))
            reward[begins] = 0
            terminated[begins] = False
            if begins[0]:
                self.path = []
        return self._show(arrived, reward, terminated)

    def follow(self, state: Array, action: Array, begins: Array) -> tuple[Array, Array, Array]:
        """Draw where each action leads: state [N] int64, reward [N] float32, terminated [N] bool,
        of any value where an episode `begins` [N] bool instead. Worlds that are simulated more
        finely than their tables tell replace this."""
        model = self.model
        row = draw_row(
            model.offsets, self._sums, model.num_actions, state, action, begins, self.generator
        )
        arrived = model.next_state[row].astype(np.int64)
        return arrived, model.reward[row].astype(np.float32), self._ends[row]

    def render(self) -> Array:
        """Return env 0 as a picture, [H, W, 3] uint8."""
        if self.draw is None:
            raise RuntimeError("only an env made with render=True can be drawn")
        self._standing()
        return self.draw(self.path)

    def state_dict(self) -> State:
        step = self._standing()
        return {
            "state": step.observation,
            "time": self.time,
            "reward": step.reward[:, 0],
            "terminated": step.terminated,
            "generator": self.generator.bit_generator.state,
        }

    def load_state_dict(self, state: State) -> Step:
        """Restore a saved world. Raises Mistake where it has more or fewer envs."""
        num_saved = len(state["state"])
        if num_saved != self.spec.num_envs:
            raise Mistake(f"the run was saved with {num_saved} envs: set env.num_envs={num_saved}")
        self.generator.bit_generator.state = state["generator"]
        self.time = np.array(state["time"])
        self.path = []
        return self._show(*(np.array(state[k]) for k in ("state", "reward", "terminated")))

    def close(self) -> None:
        pass

    def _begin(self, n: int) -> Array:
        """Draw the states [n] int64 in which episodes begin."""
        return np.searchsorted(self._start, self.generator.random(n), side="right")

    def _standing(self) -> Step:
        if self.step_now is None:
            raise RuntimeError("call reset first")
        return self.step_now

    def _show(self, state: Array, reward: Array, terminated: Array) -> Step:
        late = self.time >= self.max_steps if self.max_steps else np.zeros(len(state), bool)
        if self.draw is not None:
            self.path.append(int(state[0]))
        self.step_now = Step.at(
            state,
            self.spec.num_actions,
            action_mask=self._legal.take(state, 0),
            reward=reward[:, None],
            terminated=terminated,
            truncated=late & ~terminated,
        )
        return self.step_now


@njit(cache=True)
def cumulative(offsets, probability):  # [M + 1] int64, [K] -> [K] float64
    """Return the running sum of the probabilities within each group of rows. It ends at exactly 1,
    so that no number below 1 lies beyond it."""
    sums = np.zeros(len(probability))
    for group in range(len(offsets) - 1):
        total = 0.0
        for k in range(offsets[group], offsets[group + 1]):
            total += probability[k]
            sums[k] = total
        for k in range(offsets[group], offsets[group + 1]):
            sums[k] /= total
    return sums


@njit(cache=True)
def draw_row(offsets, sums, num_actions, state, action, begins, generator):
    """Draw the transition that each env makes, as its row [N] int64 of the tables; row 0 where an
    episode begins. State and action are [N] int64, begins [N] bool, sums from `cumulative`."""
    row = np.zeros(len(state), np.int64)
    for i in range(len(state)):
        if not begins[i]:
            pair = state[i] * num_actions + action[i]
            first, last = offsets[pair], offsets[pair + 1]
            place = np.searchsorted(sums[first:last], generator.random(), side="right")
            row[i] = first + place
    return row
