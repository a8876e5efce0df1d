"""What the bandit agents share: k arms, no state that a pull could change, and each pull's reward
learned from at once.

Three families, by what decides the pull: an index per arm (`Bandit`), probabilities (`Softmax`), or
what the arms are expected to pay in the context that is seen (`Linear`). The agents of agents/ add
their formula. Shape letters: N learners, M envs to decide for, k arms, d numbers in a context.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from gymnasium.spaces import Box, Discrete
from numba import njit

from rlplay.core import Array, Decision, Mistake, Spec, Step, Trajectory
from rlplay.learners import Learners, best, choose, draw, move, space_in_words


class Bandit(Learners):
    """N learners that pull the arm of the highest index, ties broken at random. Its tables begin
    with `count` [N, k] float64, pulls of each arm, and `mean` [N, k] float64, of what it paid."""

    epsilon = 0.0
    """Share of pulls that are of any arm, whatever the index."""
    step_size = 0.0
    """How far an estimate moves towards each reward; 0 for the mean of all rewards."""

    def __init__(
        self, name: str, spec: Spec, seed: int, learns: bool, initial_mean: float = 0.0
    ) -> None:
        """Raises Mistake for a world with more than one state."""
        super().__init__(name, spec, seed, learns)
        check_one_state(name, spec)
        shape = (self.num_actions,)
        self.make_tables(name, {"count": (shape, 0.0), "mean": (shape, float(initial_mean))})

    @abstractmethod
    def index(self) -> Array:
        """Return how much each learner would like to pull each arm, [N, k] float64; inf for an arm
        that must be tried."""

    def value(self) -> Array:
        """Return what each learner believes each arm to pay, [N, k] float64."""
        return self.tables["mean"]

    def update(self, action: Array, reward: Array, live: Array) -> None:
        """Learn what `action` [N] paid, `reward` [N] float64, where `live` [N] bool."""
        move(self.tables["mean"], self.tables["count"], action, reward, live, self.step_size)

    def act(self, step: Step, explore: bool = True) -> Decision:
        """Explore by the index; else pull the arm of the highest value, the first of equals."""
        num_envs = len(step.action_mask)
        value = self.by_env(self.value(), num_envs).copy()
        if not explore:
            return Decision(best(value, step.action_mask), {"q_values": value})
        index = self.by_env(self.index(), num_envs)
        action = choose(index, step.action_mask, self.epsilon, self.generator)
        return Decision(action, {"q_values": value})

    def learn(self, trajectory: Trajectory) -> dict[str, float]:
        self.update(*pulls(trajectory))
        return {}


class Softmax(Learners):
    """N learners that pull arms with the probabilities (1 - uniform) softmax(preference) +
    uniform / k, over the legal arms. Its tables begin with `preference` [N, k] float64."""

    def __init__(
        self, name: str, spec: Spec, seed: int, learns: bool, uniform: float = 0.0
    ) -> None:
        """Raises Mistake for a world with more than one state."""
        super().__init__(name, spec, seed, learns)
        check_one_state(name, spec)
        self.uniform = uniform
        self.make_tables(name, {"preference": ((self.num_actions,), 0.0)})

    @abstractmethod
    def update(self, action: Array, reward: Array, live: Array, policy: Array) -> None:
        """Learn what `action` [N] paid, `reward` [N] float64, where `live` [N] bool, when the arms
        had the probabilities `policy` [N, k] float64."""

    def act(self, step: Step, explore: bool = True) -> Decision:
        """Pull by the probabilities; not to explore, the most probable arm, the first of equals."""
        preference = self.by_env(self.tables["preference"], len(step.action_mask))
        policy = softmax(preference, step.action_mask, self.uniform)
        if not explore:
            return Decision(best(policy, step.action_mask), {"policy": policy})
        return Decision(draw(policy, self.generator), {"policy": policy})

    def learn(self, trajectory: Trajectory) -> dict[str, float]:
        self.update(*pulls(trajectory), trajectory.decision.notes["policy"][0])
        return {}


class Linear(Learners):
    """N learners that believe each arm to pay theta . x on average, in the context x, each arm with
    a theta of its own, found by ridge regression on its pulls:

        A = ridge I + sum x x',   theta = A^-1 sum r x

    Tables: `theta` [N, k, d] and `inverse` [N, k, d, d], A^-1, moved with each pull by the formula
    of Sherman and Morrison, which needs no inversion."""

    def __init__(self, name: str, spec: Spec, seed: int, learns: bool, ridge: float) -> None:
        """Raises Mistake where contexts are not vectors or the tables do not fit."""
        super().__init__(name, spec, seed, learns)
        space = spec.observation_space
        if not (isinstance(space, Box) and len(space.shape) == 1):
            raise Mistake(
                f"{name} needs contexts that are vectors of numbers, and this world shows"
                f" {space_in_words(spec)}; choose ucb1 for a world without contexts"
            )
        k, d = self.num_actions, space.shape[0]
        self.make_tables(name, {"theta": ((k, d), 0.0), "inverse": ((k, d, d), 0.0)})
        self.tables["inverse"][:] = np.eye(d) / ridge

    @abstractmethod
    def index(self, mean: Array, width: Array) -> Array:
        """Return how much each learner would like to pull each arm, [M, k] float64, given the mean
        theta . x [M, k] and the width sqrt(x' A^-1 x) [M, k] of what it knows of it."""

    def act(self, step: Step, explore: bool = True) -> Decision:
        """Explore by the index; else pull the arm of the highest mean, the first of equals."""
        context = np.asarray(step.observation, np.float64)
        mean, width = predict(self.tables["theta"], self.tables["inverse"], context)
        if not explore:
            return Decision(best(mean, step.action_mask), {"q_values": mean})
        index = self.index(mean, width)
        return Decision(choose(index, step.action_mask, 0.0, self.generator), {"q_values": mean})

    def learn(self, trajectory: Trajectory) -> dict[str, float]:
        context = np.asarray(trajectory.step.observation[0], np.float64)
        regress(self.tables["theta"], self.tables["inverse"], context, *pulls(trajectory))
        return {}


def check_one_state(name: str, spec: Spec) -> None:
    """Raise Mistake for a world with more than one state."""
    space = spec.observation_space
    if not (isinstance(space, Discrete) and space.n == 1):
        raise Mistake(
            f"{name} knows one state only, and this world shows {space_in_words(spec)};"
            " choose a tabular agent such as q_learning, or linucb for contexts"
        )


def check_rewards(
    name: str, reward: Array, live: Array, instead: str, low: float = 0.0, high: float = 1.0
) -> None:
    """Raise Mistake where a live reward is outside low..high, as some formulas demand."""
    wrong = live & ~((reward >= low) & (reward <= high))
    if wrong.any():
        raise Mistake(
            f"{name} needs rewards between {low:g} and {high:g}, and this world paid"
            f" {reward[wrong][0]:.4g}; {instead}"
        )


def pulls(trajectory: Trajectory) -> tuple[Array, Array, Array]:
    """Return the arm that each env was asked for, [N] int64, what it paid, [N] float64, and whether
    it was pulled at all, [N] bool: after the end of an episode the action began a new one."""
    step = trajectory.step
    live = ~(step.terminated[0] | step.truncated[0])
    return trajectory.decision.action[0], step.reward[1, :, 0].astype(np.float64), live


@njit(cache=True, error_model="numpy")
def upper_bound(mean, count, alpha):  # [N, k], [N, k] -> [N, k]
    """Return mean + alpha sqrt(2 ln t / count), with t the sum of a learner's counts; inf where the
    count is 0."""
    num_learners, num_arms = mean.shape
    bound = np.empty((num_learners, num_arms))
    known, scale = -1.0, 0.0
    for i in range(num_learners):
        t = 0.0
        for a in range(num_arms):
            t += count[i, a]
        if t != known:  # learners side by side have mostly pulled equally often
            known, scale = t, 2 * alpha**2 * np.log(max(t, 1.0))
        for a in range(num_arms):
            bound[i, a] = scale / count[i, a] if count[i, a] > 0 else np.inf
    flat, flat_mean = bound.reshape(-1), mean.reshape(-1)  # one long loop is a quick one
    for j in range(len(flat)):
        flat[j] = flat_mean[j] + np.sqrt(flat[j])
    return bound


@njit(cache=True)
def softmax(preference, action_mask, uniform):  # [M, k], [M, k] bool -> [M, k]
    """Return (1 - uniform) softmax(preference) + uniform / k over the legal arms; 0 elsewhere."""
    num_rows, num_arms = preference.shape
    policy = np.zeros((num_rows, num_arms))
    for i in range(num_rows):
        highest, legal, total = -np.inf, 0, 0.0
        for a in range(num_arms):
            if action_mask[i, a]:
                highest = max(highest, preference[i, a])
                legal += 1
        for a in range(num_arms):
            if action_mask[i, a]:
                policy[i, a] = np.exp(preference[i, a] - highest)
                total += policy[i, a]
        for a in range(num_arms):
            if action_mask[i, a]:
                policy[i, a] = (1 - uniform) * policy[i, a] / total + uniform / legal
    return policy


@njit(cache=True)
def predict(theta, inverse, context):  # [N, k, d], [N, k, d, d], [M, d] -> [M, k], [M, k]
    """Return theta . x and sqrt(x' A^-1 x) of each arm in the context x; learner i mod N answers
    for env i."""
    num_learners, num_arms, size = theta.shape
    mean, width = np.zeros((len(context), num_arms)), np.zeros((len(context), num_arms))
    for i in range(len(context)):
        learner, x = i % num_learners, context[i]
        for a in range(num_arms):
            spread = 0.0
            for row in range(size):
                mean[i, a] += theta[learner, a, row] * x[row]
                if x[row] != 0:  # pictures have many dark points
                    spread += x[row] * np.dot(inverse[learner, a, row], x)
            width[i, a] = np.sqrt(max(spread, 0.0))
    return mean, width


@njit(cache=True)
def regress(theta, inverse, context, action, reward, live):
    """Move theta [N, k, d] and inverse [N, k, d, d] by a pull in the context [N, d] each."""
    for i in range(len(action)):
        if live[i]:
            x, coefficients, matrix = context[i], theta[i, action[i]], inverse[i, action[i]]
            leverage = np.dot(matrix, x)  # A^-1 x, with A as it was before this pull
            scale = 1 + np.dot(x, leverage)
            coefficients += (reward[i] - np.dot(coefficients, x)) / scale * leverage
            leverage /= np.sqrt(scale)
            for row in range(len(x)):
                for column in range(len(x)):  # which keeps the matrix symmetric to the last bit
                    matrix[row, column] -= leverage[row] * leverage[column]
