"""Learners in tables of two kinds, by what they learn: what actions are worth, to play by it
(`Control`), or what states are worth under a policy that is given (`Prediction`).

Agents of agents/ say what a step teaches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numba import njit

from rlplay import planning
from rlplay.core import Array, Decision, Mistake, Range, Spec, Step
from rlplay.learners import Tabular, Transition, best, choose, draw, expected, move
from rlplay.model import Model


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
            action = best(q_values, step.action_mask)
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
        self.settings = config
        self.policy: Array | None = None  # [S, A]; uniform needs no table
        if config.policy != "uniform":
            self.policy = planning.policy_of(spec, config.policy, config.discount)
        self.exact: Array | None = None  # [S] float64, the true values where they are known
        model = spec.model
        if learns and self.enumerated and isinstance(model, Model):
            self.exact = self.truth(model)

    def truth(self, model: Model) -> Array | None:
        """Return the values of a model, [S] float64, for comparison only; None where it is too
        large to solve it for that, or where there are none."""
        if model.num_states > planning.DIRECT:
            return None
        policy = self.policy
        if policy is None:
            policy = planning.equal_chances(model.action_mask)
        self.visited = np.flatnonzero(visited(model, policy))  # by the policy, sooner or later
        try:
            return planning.policy_values(model, policy, self.settings.discount)
        except Mistake:  # undiscounted, and an episode may never end
            return None

    def act(self, step: Step, explore: bool = True) -> Decision:
        """Follow the policy; it is the same with and without `explore`."""
        policy = probabilities(self.policy, step)
        action = draw(policy, self.chance.of(self.generator, explore))
        return Decision(action, {"value": self.known("value", step.observation), "policy": policy})

    def error(self, over: Array) -> dict[str, float | Array]:
        """Return the root mean squared error of each learner, [N] float64, over the states that the
        policy visits, where the true values are known; in large worlds only where an episode was
        just `over`, for it takes a look at every state."""
        if self.exact is None or (self.num_learners * len(self.visited) > 1e5 and not over.any()):
            return {}
        return {"train/rms_error": rms_error(self.tables["value"], self.exact, self.visited)}


def probabilities(policy: Array | None, step: Step) -> Array:
    """Return how likely a policy [S, A] takes each action, [M, A] float64: as it says of the legal
    ones, and any legal one where it says nothing of them or is None."""
    mask = step.action_mask.astype(np.float64)
    chances = mask
    if policy is not None:
        chances = mask * policy[step.observation]
        chances = np.where(chances.any(1, keepdims=True), chances, mask)
    return chances / chances.sum(1, keepdims=True)


def visited(model: Model, policy: Array) -> Array:  # [S, A] -> [S] bool
    """Return the states where the policy ever decides, from the start of a model's episodes."""
    state = model.pair // model.num_actions  # [K] of each transition
    taken = (policy.reshape(-1)[model.pair] > 0) & (model.continuing > 0)
    reached, num_before = model.start > 0, 0
    while reached.sum() > num_before:
        num_before = reached.sum()
        reached[model.next_state[taken & reached[state]]] = True
    return reached & ~model.terminal


@njit(cache=True)
def rms_error(value, exact, states):  # [N, S], [S], [Z] int64 -> [N] float64
    """Return each learner's root mean squared error over some states."""
    error = np.zeros(len(value))
    for i in range(len(value)):
        for s in states:
            error[i] += (value[i, s] - exact[s]) ** 2
        error[i] = np.sqrt(error[i] / max(len(states), 1))
    return error
