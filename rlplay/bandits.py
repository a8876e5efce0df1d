"""What all bandit agents share: one state, k arms, and each pull's reward learned from at once.

An agent of agents/ says how much it would like to pull each arm, `index`, and what a pull teaches
it, `update`. Here the arm of the highest index is pulled, ties broken at random.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from gymnasium.spaces import Discrete
from numba import njit

from rlplay.core import Array, Decision, Mistake, Spec, Step, Trajectory
from rlplay.learners import Learners, choose, space_in_words


class Bandit(Learners):
    """N learners, each before k arms. Its tables begin with `count` [N, k] float64, pulls of each
    arm, and `mean` [N, k] float64, the mean of what each arm paid."""

    def __init__(
        self, name: str, spec: Spec, seed: int, learns: bool, initial_mean: float = 0.0
    ) -> None:
        """Raises Mistake for a world with more than one state."""
        super().__init__(name, spec, seed, learns)
        space = spec.observation_space
        if not (isinstance(space, Discrete) and space.n == 1):
            raise Mistake(
                f"{name} knows one state only, and this world shows {space_in_words(spec)};"
                " choose a tabular agent such as q_learning, or linucb for contexts"
            )
        shape = (self.num_learners, self.num_actions)
        self.tables["count"] = np.zeros(shape)
        self.tables["mean"] = np.full(shape, initial_mean)

    @abstractmethod
    def index(self) -> Array:
        """Return how much each learner would like to pull each arm, [N, k] float64; inf for an arm
        that must be tried."""

    def update(self, action: Array, reward: Array, live: Array) -> None:
        """Learn what `action` [N] paid, `reward` [N] float64, where `live` [N] bool."""
        add(self.tables["count"], self.tables["mean"], action, reward, live, 0.0)

    def act(self, step: Step, explore: bool = True) -> Decision:
        """Explore by the index; else pull the arm of the highest mean."""
        learner = self.learner(len(step.action_mask))
        mean = self.tables["mean"][learner]
        if not explore:
            return Decision(np.where(step.action_mask, mean, -np.inf).argmax(1), {"q_values": mean})
        action = choose(self.index()[learner], step.action_mask, 0.0, self.generator)
        return Decision(action, {"q_values": mean})

    def learn(self, trajectory: Trajectory) -> dict[str, float]:
        step, action = trajectory.step, trajectory.decision.action
        for t in range(len(action)):
            live = ~(step.terminated[t] | step.truncated[t])
            self.update(action[t], step.reward[t + 1, :, 0].astype(np.float64), live)
        return {}


@njit(cache=True)
def add(count, mean, action, reward, live, step_size):  # [N, k], [N, k], [N], [N], [N] bool
    """Count a pull and move the mean of its arm, by `step_size` or, where that is 0, such that it
    is the mean of all its rewards."""
    for i in range(len(action)):
        if live[i]:
            arm = action[i]
            count[i, arm] += 1
            size = step_size if step_size > 0 else 1 / count[i, arm]
            mean[i, arm] += size * (reward[i] - mean[i, arm])
