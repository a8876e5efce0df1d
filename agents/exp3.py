"""Exp3 (Auer, Cesa-Bianchi, Freund & Schapire 2002): for arms that pay by no law, or even by the
will of an opponent.

    p(b) = (1 - gamma) w(b) / sum w + gamma / k
    w(a) <- w(a) exp(gamma x / k),   x = r / p(a)  where arm a was pulled and paid r

x stands for the reward of arm a without bias, since it is seen with probability p(a) only. The
preferences are ln w, the highest of a learner 0, so that no run is too long for them. Rewards are
moved from `reward_range` to 0..1 first; one outside is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from numba import njit

from rlplay.bandits import Softmax, check_rewards
from rlplay.core import Array, Mistake, Range, Spec


@dataclass(frozen=True)
class Config:
    name: Literal["exp3"] = "exp3"
    gamma: Annotated[float, Range(1e-6, 1)] = 0.1
    """Share of pulls that are of any arm, and how far weights move. For n pulls of k arms the paper
    takes sqrt(k ln k / ((e - 1) n)), at most 1."""
    reward_range: tuple[float, float] = (0.0, 1.0)
    """The lowest and the highest reward there can be."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> Exp3:
        """Build the agent. Raises Mistake for a world with more than one state, and for a range
        that is empty."""
        return Exp3(self, spec, seed, learns)


class Exp3(Softmax):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config.name, spec, seed, learns, uniform=config.gamma)
        self.low, self.high = config.reward_range
        if not self.low < self.high:
            raise Mistake(
                f"agent.reward_range must rise, and goes from {self.low:g} to {self.high:g};"
                " set it to the lowest and the highest reward, such as 0 1"
            )
        self.config = config

    def update(self, action: Array, reward: Array, live: Array, policy: Array) -> None:
        """Learn from rewards in `reward_range`. Raises Mistake where one is not."""
        low, high, name = self.low, self.high, self.config.name
        check_rewards(name, reward, live, "set agent.reward_range wider", low, high)
        share = (reward - low) / (high - low)
        reweigh(self.tables["preference"], action, share, live, policy, self.config.gamma)


@njit(cache=True)
def reweigh(preference, action, reward, live, policy, gamma):  # [N, k], [N] thrice, [N, k]
    """Raise the preference of each pulled arm by gamma / k times the estimate of its reward."""
    num_arms = preference.shape[1]
    for i in range(len(action)):
        if live[i]:
            arm = action[i]
            preference[i, arm] += gamma / num_arms * reward[i] / policy[i, arm]
            preference[i] -= preference[i].max()
