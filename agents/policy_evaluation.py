"""Policy evaluation from the world's model: what a given policy is worth, one sweep for each step
that is played (Sutton & Barto 2018, section 4.1).

    V(s) <- sum_a policy(a | s) (r(s, a) + discount sum_s' P(s' | s, a) V(s'))

It plays the policy that it evaluates, so that the scores of a run can be held against the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlplay.chance import Chance
from rlplay.core import Decision, Spec, State, Step
from rlplay.learners import draw
from rlplay.planners import Planner, Planning
from rlplay.planning import Order, ValueIteration, policy_of
from rlplay.values import probabilities


@dataclass(frozen=True)
class Config(Planning):
    name: Literal["policy_evaluation"] = "policy_evaluation"
    policy: str = "uniform"
    """The policy to evaluate: uniform, optimal, one that the world names, or the path of an .npy
    file [states, actions] of probabilities."""
    order: Order = "synchronous"
    """Which values a backup sees: all of the last sweep (synchronous), the newest (gauss_seidel),
    or the newest with the most urgent state first (prioritized)."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> PolicyEvaluation:
        """Build the agent. Raises Mistake where the world has no model, or no such policy."""
        return PolicyEvaluation(self, spec, seed)


class PolicyEvaluation(Planner):
    config: Config

    def __init__(self, config: Config, spec: Spec, seed: int) -> None:
        super().__init__(config, spec)
        # Named, so that it never repeats the random numbers of an env with the same seed.
        self.generator = np.random.default_rng([*b"policy_evaluation", seed])
        self.chance = Chance()

    def start(self, spec: Spec) -> ValueIteration:
        self.given = policy_of(spec, self.config.policy, self.config.discount)
        chain = self.tables.under(self.given)
        return ValueIteration(chain, self.config.discount, self.config.order)

    def look(self) -> None:
        self.q_values = self.finite_values()

    def act(self, step: Step, explore: bool = True) -> Decision:
        policy = probabilities(self.given, step)
        action = draw(policy, self.chance.of(self.generator, explore))
        return Decision(action, {**self.notes(step), "policy": policy})

    def state_dict(self) -> State:
        state = super().state_dict()
        own = {**state["agent"], "generator": self.generator.bit_generator.state}
        return {**state, "agent": own}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.generator.bit_generator.state = state["agent"]["generator"]
