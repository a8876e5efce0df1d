"""What planning repeats many times: passes over the transitions of a model, compiled by numba, and
over its dense matrix by BLAS.

Values are [S] float64, action values [S, A] float64 and -inf where illegal; a terminal state, one
without a legal action, is worth 0. Knows no solution method and no stopping rule: see planning.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numba import njit, prange, uint64

from rlplay.core import Array
from rlplay.model import Model

Representation = Literal["auto", "sparse", "dense"]
TIES = 1e-11
"""Action values that differ by less than this share of the largest one are equal."""
PARALLEL = 200_000  # transitions from which a second thread pays
CHUNKS = 64  # of states, fixed so that the number of threads changes no result


class Rows(NamedTuple):
    """The transitions of a model as the kernels read them; row x = s * A + a is a pair."""

    num_actions: int
    offsets: Array  # [S * A + 1] int64, where the transitions of each pair begin
    next_state: Array  # [K] uint32; unsigned, so that an index needs no look whether it is negative
    probability: Array  # [K] float64, of arriving there and going on
    reward: Array  # [S * A] float64, mean; -inf where illegal


@dataclass(frozen=True, eq=False)
class Tables:
    """A model, made ready for sweeps."""

    rows: Rows
    ends: Array  # [S * A] bool, the pairs that may end the episode by themselves
    matrix: Array | None = None  # [S * A, S] float64, the same probabilities where dense

    @classmethod
    def of(cls, model: Model, representation: Representation = "sparse") -> Tables:
        """Prepare a model; "auto" is dense where a quarter of all transitions can happen and the
        matrix fits into 200 MB. Dense rows list every state as a successor."""
        pairs = model.num_states * model.num_actions
        reward, ends = np.empty(pairs), np.zeros(pairs, bool)
        means(model.offsets, model.probability, model.reward, model.terminated, reward, ends)
        entries = pairs * model.num_states
        fits = entries <= 4 * len(model.next_state) and entries * 8 <= 2e8
        if representation == "dense" or (representation == "auto" and fits):
            return cls.dense(model.dense().reshape(pairs, -1), reward, ends)
        following = model.next_state.view(np.uint32)
        rows = Rows(model.num_actions, model.offsets, following, model.continuing, reward)
        return cls(rows, ends)

    @classmethod
    def dense(cls, matrix: Array, reward: Array, ends: Array) -> Tables:
        pairs, num_states = matrix.shape
        following = np.tile(np.arange(num_states, dtype=np.uint32), pairs)
        offsets = np.arange(pairs + 1) * num_states
        rows = Rows(pairs // num_states, offsets, following, matrix.ravel(), reward)
        return cls(rows, ends, matrix)

    @property
    def num_states(self) -> int:
        return len(self.ends) // self.rows.num_actions

    @cached_property
    def legal(self) -> Array:  # [S, A] bool
        return np.isfinite(self.rows.reward).reshape(-1, self.rows.num_actions)

    @cached_property
    def terminal(self) -> Array:  # [S] bool
        return np.logical_not(self.legal.any(1))

    @cached_property
    def closed(self) -> bool:
        """Whether no episode ever ends, whatever is done."""
        return not (self.ends.any() or self.terminal.any())

    @cached_property
    def scale(self) -> tuple[int, float]:
        """The most successors and the largest mean reward of a pair."""
        rewards = np.where(np.isfinite(self.rows.reward), np.abs(self.rows.reward), 0)
        return int(np.diff(self.rows.offsets).max(initial=0)), float(rewards.max(initial=0))

    @cached_property
    def predecessors(self) -> tuple[Array, Array, Array]:
        """From where each state is reached: offsets [S + 1] int64 into pairs int64, rising, and
        probabilities float64."""
        return invert(self.rows, self.num_states)

    def rounding(self, values: Array) -> float:
        """Return how far float64 may miss when a state is backed up from `values`."""
        successors, reward = self.scale
        return (successors + 4) * np.finfo(float).eps / 2 * (reward + largest(values))

    def sweep(self, values: Array, discount: float) -> tuple[Array, Array, float, float]:
        """Return max_a (r + discount P values) [S], a best action [S] int64, and the least and the
        largest change."""
        if self.matrix is not None:
            q_values = self.action_values(values, discount)
            policy = q_values.argmax(1)
            new = np.where(self.terminal, 0.0, q_values.max(1))
            return new, policy, float((new - values).min()), float((new - values).max())
        new, policy = np.empty_like(values), np.empty(len(values), np.int64)
        kernel = parallel if len(self.rows.next_state) >= PARALLEL else serial
        low, high = kernel(self.rows, discount, values, new, policy)
        return new, policy, low, high

    def action_values(self, values: Array, discount: float) -> Array:
        """Return [S, A] float64, -inf where illegal."""
        if self.matrix is not None:
            q_values = self.rows.reward + discount * (self.matrix @ values)
        else:
            q_values = np.empty(len(self.rows.reward))
            action_values(self.rows, discount, values, q_values)
        return q_values.reshape(self.num_states, -1)

    def greedy(self, values: Array, discount: float) -> Array:
        """Return the first of the best actions of each state, [S] int64, 0 where terminal.

        With discount 1 the best may be to do nothing for ever, as good as to reach the goal later:
        where the first of the best actions never end an episode, another of the best that does is
        returned if there is one."""
        q_values = self.action_values(values, discount)
        best = q_values.max(1, keepdims=True)
        best = q_values >= best - TIES * largest(np.where(self.legal, q_values, 0))
        best[self.terminal] = False
        policy = best.argmax(1)
        if discount < 1:
            return policy
        ending = self.ending(one_hot(policy, self.legal), best)
        return np.where(ending < 0, policy, ending)

    def ending(self, *allowed: Array) -> Array:
        """Return an action [S] int64 for each state, by which episodes end with certainty; -1 where
        there is none. Those of the first [S, A] bool of `allowed` come first, then of the next."""
        choice = np.where(self.terminal, 0, -1)
        for pairs in allowed:
            reach(*self.predecessors[:2], self.ends, pairs.ravel(), choice)
        return choice

    def under(self, policy: Array) -> Tables:
        """Return the tables with one action: to do as the policy [S, A] says."""
        weights = np.ascontiguousarray(policy, np.float64)
        mean = np.where(self.legal, self.rows.reward.reshape(weights.shape), 0)
        reward = np.where(self.terminal, -np.inf, (weights * mean).sum(1))
        ends = np.logical_or.reduce((weights > 0) & self.ends.reshape(weights.shape), axis=1)
        if self.matrix is not None:
            cube = self.matrix.reshape(*weights.shape, -1)
            return Tables.dense(np.matmul(weights[:, None], cube)[:, 0], reward, ends)
        return Tables(Rows(1, *mix(self.rows, weights), reward), ends)


def largest(values: Array) -> float:
    """Return the largest absolute value, 0 of none."""
    return float(max(values.max(initial=0), -values.min(initial=0)))


def one_hot(policy: Array, legal: Array) -> Array:
    """Return the policy [S] int64 as [S, A] bool, no action in terminal states."""
    return (policy[:, None] == np.arange(legal.shape[1])) & legal


@njit(cache=True)
def means(offsets, probability, reward, terminated, mean, ends):
    """Fill `mean` with what each pair earns on average and `ends` with whether it may terminate."""
    for x in range(len(mean)):
        mean[x] = 0.0 if offsets[x + 1] > offsets[x] else -np.inf
        for k in range(offsets[x], offsets[x + 1]):
            mean[x] += probability[k] * reward[k]
            ends[x] = ends[x] or (terminated[k] and probability[k] > 0)


@njit(cache=True)
def backup(s, rows, discount, values):
    """Return the best action value of state s and its action; 0 and 0 where terminal."""
    best, action = -np.inf, 0
    first = s * rows.num_actions
    k = uint64(rows.offsets[first])
    for a in range(rows.num_actions):
        end = uint64(rows.offsets[first + a + 1])
        total = 0.0
        while k < end:
            total += rows.probability[k] * values[rows.next_state[k]]
            k += uint64(1)
        total = rows.reward[first + a] + discount * total
        if total > best:
            best, action = total, a
    return (best, action) if best > -np.inf else (0.0, 0)


@njit(cache=True)
def stretch(first, last, rows, discount, values, new, policy):
    low, high = np.inf, -np.inf
    for s in range(first, last):
        new[s], policy[s] = backup(s, rows, discount, values)
        change = new[s] - values[s]
        low, high = min(low, change), max(high, change)
    return low, high


@njit(cache=True)
def serial(rows, discount, values, new, policy):
    return stretch(0, len(values), rows, discount, values, new, policy)


@njit(cache=True, parallel=True)
def parallel(rows, discount, values, new, policy):
    low, high, size = np.empty(CHUNKS), np.empty(CHUNKS), len(values)
    for c in prange(CHUNKS):
        first, last = size * c // CHUNKS, size * (c + 1) // CHUNKS
        low[c], high[c] = stretch(first, last, rows, discount, values, new, policy)
    return low.min(), high.max()


@njit(cache=True)
def in_place(rows, discount, values):
    """Back up one state after the other, each from the newest values; return the least and the
    largest change."""
    low, high = np.inf, -np.inf
    for s in range(len(values)):
        value, _ = backup(s, rows, discount, values)
        change = value - values[s]
        values[s] = value
        low, high = min(low, change), max(high, change)
    return low, high


@njit(cache=True)
def action_values(rows, discount, values, q_values):
    for x in range(len(q_values)):
        total = 0.0
        for k in range(uint64(rows.offsets[x]), uint64(rows.offsets[x + 1])):
            total += rows.probability[k] * values[rows.next_state[k]]
        q_values[x] = rows.reward[x] + discount * total


@njit(cache=True)
def invert(rows, num_states):
    offsets = np.zeros(num_states + 2, np.int64)  # shifted by one while it counts what was written
    for k in range(len(rows.next_state)):
        offsets[rows.next_state[k] + 2] += rows.probability[k] > 0
    offsets = np.cumsum(offsets)
    pairs, probability = np.empty(offsets[-1], np.int64), np.empty(offsets[-1])
    for x in range(len(rows.reward)):
        for k in range(rows.offsets[x], rows.offsets[x + 1]):
            if rows.probability[k] > 0:
                place = offsets[rows.next_state[k] + 1]
                pairs[place], probability[place] = x, rows.probability[k]
                offsets[rows.next_state[k] + 1] += 1
    return offsets[:-1], pairs, probability


@njit(cache=True)
def reach(offsets, pairs, ends, allowed, choice):
    """Walk backwards from states that have a choice, and from pairs that end an episode, and give
    each state met the allowed action by which it was met."""
    num_states = len(choice)
    num_actions = len(ends) // num_states
    queue, head, tail = np.empty(num_states, np.int64), 0, 0
    for s in range(num_states):
        for a in range(num_actions):
            x = s * num_actions + a
            if choice[s] < 0 and allowed[x] and ends[x]:
                choice[s] = a
        if choice[s] >= 0:
            queue[tail] = s
            tail += 1
    while head < tail:
        for k in range(offsets[queue[head]], offsets[queue[head] + 1]):
            s, a = divmod(pairs[k], num_actions)
            if choice[s] < 0 and allowed[pairs[k]]:
                choice[s] = a
                queue[tail] = s
                tail += 1
        head += 1


@njit(cache=True)
def mix(rows, policy):
    """Return offsets, next states and probabilities of going on under a policy [S, A]."""
    num_states, num_actions = policy.shape
    size = 0
    for x in range(num_states * num_actions):
        if policy[x // num_actions, x % num_actions] > 0:
            size += rows.offsets[x + 1] - rows.offsets[x]
    offsets = np.zeros(num_states + 1, np.int64)
    following, probability = np.empty(size, np.uint32), np.empty(size)
    entry, end = np.full(num_states, -1), 0  # where each next state was last written
    for s in range(num_states):
        for a in range(num_actions):
            x = s * num_actions + a
            if policy[s, a] > 0:
                for k in range(rows.offsets[x], rows.offsets[x + 1]):
                    after = rows.next_state[k]
                    if entry[after] < offsets[s]:
                        entry[after], following[end], probability[end] = end, after, 0.0
                        end += 1
                    probability[entry[after]] += policy[s, a] * rows.probability[k]
        offsets[s + 1] = end
    return offsets, following[:end], probability[:end]


@njit(cache=True)
def prioritized(rows, predecessors, discount, values, priority, floor, num_backups):
    """Back up the state of the highest priority, up to `num_backups` times or until none is above
    `floor`.

    `priority` [S] bounds how far each state is from its backup: a change raises it for all that
    lead there. Of equals the first state comes first, so that the order is a function of it."""
    offsets, pairs, probability = predecessors
    heap, place = np.arange(len(values)), np.arange(len(values))
    for i in range(len(heap) // 2 - 1, -1, -1):
        sink(heap, place, priority, i)
    for _ in range(num_backups):
        s = heap[0]
        if priority[s] <= floor:
            return
        value, _ = backup(s, rows, discount, values)
        change = abs(value - values[s])
        values[s], priority[s] = value, 0.0
        sink(heap, place, priority, 0)
        k, end = offsets[s], offsets[s + 1]
        while k < end:
            before = pairs[k] // rows.num_actions
            most = 0.0  # probability of coming here, over the actions
            while k < end and pairs[k] // rows.num_actions == before:
                x, total = pairs[k], 0.0
                while k < end and pairs[k] == x:
                    total += probability[k]
                    k += 1
                most = max(most, total)
            priority[before] += discount * most * change
            rise(heap, place, priority, place[before])


@njit(cache=True)
def above(priority, s, t):
    return priority[s] > priority[t] or (priority[s] == priority[t] and s < t)


@njit(cache=True)
def sink(heap, place, priority, i):
    while 2 * i + 1 < len(heap):
        child = 2 * i + 1
        if child + 1 < len(heap) and above(priority, heap[child + 1], heap[child]):
            child += 1
        if not above(priority, heap[child], heap[i]):
            return
        swap(heap, place, i, child)
        i = child


@njit(cache=True)
def rise(heap, place, priority, i):
    while i > 0 and above(priority, heap[i], heap[(i - 1) // 2]):
        swap(heap, place, i, (i - 1) // 2)
        i = (i - 1) // 2


@njit(cache=True)
def swap(heap, place, i, j):
    heap[i], heap[j] = heap[j], heap[i]
    place[heap[i]], place[heap[j]] = i, j
