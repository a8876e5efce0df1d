"""Transition tables of a finite Markov decision process, stored sparsely.

A world gives them as `spec.model`; `planning.py` solves them. Shape letters: S states, A actions,
K transitions that can happen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rlplay.core import Array, Mistake

TOLERANCE = 1e-9  # by which probabilities may miss a sum of one


@dataclass(frozen=True, eq=False)
class Model:
    """What each action in each state leads to, how likely, and what it earns.

    The transitions of action a in state s are the rows offsets[s * A + a] : offsets[s * A + a + 1]
    of the other tables. An action without any is illegal; a state without a legal action is
    terminal and worth nothing. Raises Mistake where the tables are no decision process.
    """

    num_states: int
    num_actions: int
    offsets: Array  # [S * A + 1] int64, rising from 0 to K
    next_state: Array  # [K] int32
    probability: Array  # [K] float64, summing to one for every legal action
    reward: Array  # [K] float64, the mean of what this transition earns
    terminated: Array  # [K] bool, the episode is over on arriving: what follows is worth nothing
    start: Array  # [S] float64, how likely an episode begins there

    def __post_init__(self) -> None:
        size = len(self.next_state)
        shapes = {name: getattr(self, name).shape for name in ("probability", "reward")}
        shapes |= {"terminated": self.terminated.shape}
        if wrong := [name for name, shape in shapes.items() if shape != (size,)]:
            raise Mistake(f"a model's {wrong[0]} must have {size} rows, as next_state has")
        pairs = self.num_states * self.num_actions
        if self.offsets.shape != (pairs + 1,) or self.offsets[0] != 0 or self.offsets[-1] != size:
            raise Mistake(f"a model's offsets must be {pairs + 1} numbers from 0 to {size}")
        if (np.diff(self.offsets) < 0).any():
            raise Mistake("a model's offsets must not fall")
        if size and not 0 <= self.next_state.min() <= self.next_state.max() < self.num_states:
            raise Mistake(f"a model's next states must be in 0..{self.num_states - 1}")
        if not np.isfinite(self.reward).all():
            raise Mistake("a model's rewards must be finite numbers")
        if not (self.probability >= 0).all():
            raise Mistake("a model's probabilities must not be negative")
        start = self.start
        if start.shape != (self.num_states,) or not (start >= 0).all():
            raise Mistake("a model must have one starting probability per state, none negative")
        if abs(start.sum() - 1) > TOLERANCE:
            raise Mistake(
                f"a model's starting probabilities must sum to 1, not to {start.sum():.6g}"
            )
        legal = np.flatnonzero(np.diff(self.offsets))
        sums = np.add.reduceat(self.probability, self.offsets[legal]) if size else np.zeros(0)
        wrong = legal[np.abs(sums - 1) > TOLERANCE]
        if len(wrong):
            state, action = divmod(int(wrong[0]), self.num_actions)
            total = sums[np.searchsorted(legal, wrong[0])]
            raise Mistake(
                f"the probabilities of action {action} in state {state} sum to {total:.6g}, not 1"
            )

    @classmethod
    def of(
        cls,
        num_states: int,
        num_actions: int,
        transitions: Iterable[tuple[int, int, int, float, float, bool]] | Array,
        start: Array,
    ) -> Model:
        """Build a model from (state, action, next state, probability, reward, terminated), in any
        order, tuples or an array [K, 6]; equal ones are merged, impossible ones dropped. Raises
        Mistake where they are no decision process."""
        rows = transitions if isinstance(transitions, np.ndarray) else list(transitions)
        table = np.asarray(rows, np.float64).reshape(-1, 6)
        if not ((table[:, 3] >= 0) & np.isfinite(table[:, 3])).all():
            raise Mistake("a model's probabilities must not be negative, and must be numbers")
        table = table[table[:, 3] != 0]
        table = table[np.lexsort(table[:, [4, 5, 2, 1, 0]].T)]
        state, action = table[:, 0], table[:, 1]
        outside = (state < 0) | (state >= num_states) | (action < 0) | (action >= num_actions)
        if outside.any():
            s, a = table[outside][0, :2].astype(int)
            raise Mistake(
                f"a model of {num_states} states and {num_actions} actions"
                f" has none for action {a} in state {s}"
            )
        apart = (np.diff(table[:, [0, 1, 2, 4, 5]], axis=0) != 0).any(1)
        heads = np.flatnonzero(np.concatenate([[True], apart])) if len(table) else np.arange(0)
        pair = (state * num_actions + action).astype(np.int64)[heads]
        return cls(
            num_states,
            num_actions,
            offsets=np.searchsorted(pair, np.arange(num_states * num_actions + 1)),
            next_state=table[heads, 2].astype(np.int32),
            probability=np.add.reduceat(table[:, 3], heads) if len(heads) else np.zeros(0),
            reward=table[heads, 4],
            terminated=table[heads, 5].astype(bool),
            start=np.asarray(start, np.float64),
        )

    @classmethod
    def from_arrays(
        cls,
        next_state: Array,
        probability: Array,
        reward: Array,
        terminated: Array | None = None,
        start: Array | None = None,
    ) -> Model:
        """Build a model from arrays [S, A, K'] of up to K' successors for each state and action;
        those of probability 0 are dropped, and an action without any is illegal. For users who
        have their world in arrays: `of` is for one written down transition by transition.

        `reward` is [S, A, K'] or [S, A]; by default nothing is terminated and every state is as
        likely to be the first. Arrays of the right type are taken over and not copied. Raises
        Mistake where they are no decision process."""
        num_states, num_actions, width = next_state.shape
        if probability.shape != next_state.shape or reward.shape[:2] != next_state.shape[:2]:
            raise Mistake(
                f"a model's next states {next_state.shape}, probabilities {probability.shape} and"
                f" rewards {reward.shape} must be of the same states and actions"
            )
        if reward.ndim == 2:
            reward = np.broadcast_to(reward[:, :, None], next_state.shape)
        if terminated is None:
            terminated = np.zeros(next_state.shape, bool)
        columns = [next_state, probability, reward, terminated]
        offsets = np.arange(num_states * num_actions + 1) * width
        if not (possible := probability != 0).all():
            counts = possible.reshape(-1, width).sum(1)
            offsets = np.concatenate([[0], np.cumsum(counts)])
            columns = [np.broadcast_to(column, possible.shape)[possible] for column in columns]
        if columns[0].size and not 0 <= columns[0].min() <= columns[0].max() < num_states:
            raise Mistake(f"a model's next states must be in 0..{num_states - 1}")
        following, chance, earned, over = (np.ascontiguousarray(c).ravel() for c in columns)
        return cls(
            num_states,
            num_actions,
            offsets,
            following.astype(np.int32, copy=False),
            chance.astype(np.float64, copy=False),
            earned.astype(np.float64, copy=False),
            over.astype(bool, copy=False),
            np.full(num_states, 1 / num_states) if start is None else start,
        )

    @cached_property
    def action_mask(self) -> Array:
        """[S, A] bool, which actions are legal."""
        return (np.diff(self.offsets) > 0).reshape(self.num_states, self.num_actions)

    @cached_property
    def terminal(self) -> Array:
        """[S] bool, the states without a legal action."""
        return np.logical_not(self.action_mask.any(1))

    @cached_property
    def pair(self) -> Array:
        """[K] int64, s * A + a of each transition."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @cached_property
    def expected_reward(self) -> Array:
        """[S, A] float64, the mean of what each action earns; 0 where it is illegal. For users:
        solvers work it out for themselves, many times as fast (see sweeps.py)."""
        pairs = self.num_states * self.num_actions
        earned = np.bincount(self.pair, self.probability * self.reward, pairs)
        return earned.reshape(self.num_states, self.num_actions)

    @cached_property
    def continuing(self) -> Array:
        """[K] float64, the probability of each transition that does not end the episode, else 0."""
        if not self.terminated.any():
            return self.probability
        return np.where(self.terminated, 0.0, self.probability)

    def dense(self) -> Array:
        """Return the probabilities of going on, [S, A, S] float64: the sum over the last axis is
        less than one by the probability that the episode ends."""
        matrix = np.zeros((self.num_states * self.num_actions, self.num_states))
        np.add.at(matrix, (self.pair, self.next_state), self.continuing)
        return matrix.reshape(self.num_states, self.num_actions, self.num_states)
