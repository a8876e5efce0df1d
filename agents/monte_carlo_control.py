"""On-policy Monte-Carlo control (Sutton & Barto 2018, sections 5.3 and 5.4), in tables.

    G_t = r_{t+1} + discount G_{t+1}
    Q(s_t, a_t) <- Q(s_t, a_t) + (1 / n) (G_t - Q(s_t, a_t)),  or with a constant step size

The policy is epsilon-greedy by Q; or, with exploring starts, greedy but for the first action of
each episode, which is any legal one. That needs a world whose episodes begin everywhere, and ones
that are cut short, for a greedy policy may go round in circles. An episode that was cut short is
taken to have earned, from its last state on, what the policy expected of that state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from rlplay.core import Array, Decision, Range, Spec, Step, Trajectory
from rlplay.learners import choose, learn_from_episodes, remember
from rlplay.values import ActionValues, Control


@dataclass(frozen=True)
class Config(Control):
    name: Literal["monte_carlo_control"] = "monte_carlo_control"
    step_size: Annotated[float, Range(0, 1)] = 0.0
    """How far an estimate moves towards each return; 0 for the mean of all returns."""
    visits: Literal["first", "every"] = "first"
    """Which times that an action is taken in a state in an episode count: the first, or all."""
    exploring_starts: bool = False
    """Begin each episode with any legal action and be greedy afterwards, whatever epsilon."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> MonteCarloControl:
        """Build the agent. Raises Mistake where states or actions are not discrete."""
        return MonteCarloControl(self, spec, seed, learns)


class MonteCarloControl(ActionValues):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config, spec, seed, learns)
        self.config = config
        self.epsilon = 0.0 if config.exploring_starts else config.epsilon
        self.cut()

    def cut(self) -> None:
        """Forget the episodes under way."""
        n = self.num_learners
        self.memory = {
            "length": np.zeros(n, np.int64),
            "pair": np.zeros((n, 16), np.int64),
            "reward": np.zeros((n, 16)),
            "discount": np.zeros((n, 16)),
        }

    def act(self, step: Step, explore: bool = True) -> Decision:
        if not (explore and self.config.exploring_starts):
            return super().act(step, explore)
        q_values = self.known("q", step.observation)
        begins = self.memory["length"][self.learner(len(q_values))] == 0
        index = np.where(begins[:, None], 0.0, q_values)  # at the start all actions look alike
        action = choose(index, step.action_mask, 0.0, self.generator)
        return Decision(action, {"q_values": q_values})

    def learn(self, trajectory: Trajectory) -> dict[str, float | Array]:
        t, memory = self.transition(trajectory, self.config.discount), self.memory
        pair = t.state * self.num_actions + t.action
        remember(memory, t.live, pair=pair, reward=t.reward, discount=t.discount)
        if t.over.any():
            learn_from_episodes(
                self.tables["q"].reshape(self.num_learners, -1),
                self.tables["count"].reshape(self.num_learners, -1),
                memory["pair"],
                memory["reward"],
                memory["discount"],
                memory["length"],
                t.over,
                self.expected(t, self.epsilon),
                self.config.visits == "first",
                self.config.step_size,
            )
            memory["length"][t.over] = 0
        return {}
