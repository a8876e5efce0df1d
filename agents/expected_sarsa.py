"""Expected SARSA (van Seijen et al. 2009; Sutton & Barto 2018, section 6.6), in tables.

Q(s, a) <- Q(s, a) + step_size (r + discount sum_b pi(b|s') Q(s', b) - Q(s, a))

pi is epsilon-greedy: as the agent acts, or with an epsilon of its own, which makes the learning
off-policy. With a greedy pi this is Q-learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rlplay.core import Array, Range, Spec, Trajectory
from rlplay.values import ActionValues, Control


@dataclass(frozen=True)
class Config(Control):
    name: Literal["expected_sarsa"] = "expected_sarsa"
    target_epsilon: Annotated[float, Range(0, 1)] | None = None
    """Share of random actions in the policy that is learned of; none for that of `epsilon`."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> ExpectedSarsa:
        """Build the agent. Raises Mistake where states or actions are not discrete."""
        return ExpectedSarsa(self, spec, seed, learns)


class ExpectedSarsa(ActionValues):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config, spec, seed, learns)
        own = config.target_epsilon
        self.target_epsilon = config.epsilon if own is None else own

    def learn(self, trajectory: Trajectory) -> dict[str, float | Array]:
        t = self.transition(trajectory, self.settings.discount)
        target = t.reward + t.discount * self.expected(t, self.target_epsilon)
        return {"train/td_error": self.move(t.state, t.action, target, t.live)}
