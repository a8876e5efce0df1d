"""Advantage actor-critic (Mnih et al. 2016), its workers side by side instead of one after the
other: one update on each short rollout. Adam instead of RMSProp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rlplay import policy_gradient
from rlplay.core import Range, Spec, Trajectory
from rlplay.policy_gradient import PolicyGradient
from rlplay.rollout import explained_variance, mean, normalized
from rlplay.targets import gae


@dataclass(frozen=True)
class Config(policy_gradient.Config):
    name: Literal["a2c"] = "a2c"
    horizon: Annotated[int, Range(1)] = 5
    """Agent steps of each env between two updates. Mnih et al. 2016: 5."""
    learning_rate: Annotated[float, Range(0, 1)] = 7e-4
    """Step size of Adam at first. Mnih et al. 2016: 7e-4 with RMSProp."""
    trace: Annotated[float, Range(0, 1)] = 1.0
    """Lambda of the advantages: 0 looks one step ahead, 1 to the end (Schulman et al. 2016)."""
    value_weight: Annotated[float, Range(0)] = 0.5
    """Weight of the values' squared error beside the policy's gain."""
    normalize_advantages: bool = False
    """Bring the advantages of each rollout to mean 0 and deviation 1."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> A2C:
        """Build the agent. Raises Mistake where it cannot play in this world."""
        return A2C(self, spec, seed)


class A2C(PolicyGradient):
    def __init__(self, config: Config, spec: Spec, seed: int) -> None:
        super().__init__(config, spec, seed)
        self.config = config

    def improve(self, trajectory: Trajectory) -> dict[str, float]:
        """Make one update on a trajectory [T, N]."""
        config, rollout = self.config, self.rollout(trajectory)
        advantage = gae(*rollout.earnings(), config.trace)
        batch = rollout.flat(advantage=advantage, returns=rollout.value[:-1] + advantage)
        advantage, returns, weight = (batch[name] for name in ("advantage", "returns", "weight"))
        if config.normalize_advantages:
            advantage = normalized(advantage, weight)
        policy, value = self.judge(batch)
        gain = mean(policy.log_prob(batch["sample"]) * advantage, weight)
        value_loss = mean((value - returns).square(), weight)
        entropy = mean(policy.entropy(), weight)
        entropy_weight = self.entropy_weight(self.num_seen)
        loss = config.value_weight * value_loss - gain - entropy_weight * entropy
        self.descent.step(loss, policy_gradient_loss=-gain, value_loss=value_loss, entropy=entropy)
        known = explained_variance(batch["value"], returns, weight)
        return self.descent.metrics(batch) | {"train/explained_variance": known}
