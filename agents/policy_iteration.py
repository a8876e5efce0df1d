"""Policy iteration (Howard 1960) from the world's model, one improvement for each step that is
played.

    V <- solution of V(s) = sum_a policy(a | s) (r(s, a) + discount sum_s' P(s' | s, a) V(s'))
    policy(s) <- argmax_a (r(s, a) + discount sum_s' P(s' | s, a) V(s'))

With evaluation_sweeps the first line is a few sweeps towards the solution instead (modified policy
iteration, Puterman & Shin 1978).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rlplay.core import Range, Spec
from rlplay.planners import Planner, Planning
from rlplay.planning import PolicyIteration, policy_of


@dataclass(frozen=True)
class Config(Planning):
    name: Literal["policy_iteration"] = "policy_iteration"
    policy: str = "uniform"
    """The policy to begin with: uniform, one that the world names, or the path of an .npy file
    [states, actions] of probabilities."""
    evaluation_sweeps: Annotated[int, Range(0)] = 0
    """Sweeps that evaluate a policy before it is improved; 0 to evaluate it exactly."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> PolicyIterationAgent:
        """Build the agent. Raises Mistake where the world has no model."""
        return PolicyIterationAgent(self, spec)


class PolicyIterationAgent(Planner):
    config: Config

    def start(self, spec: Spec) -> PolicyIteration:
        config = self.config
        policy = policy_of(spec, config.policy, config.discount)
        return PolicyIteration(self.tables, config.discount, config.evaluation_sweeps, policy)
