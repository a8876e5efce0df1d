"""Proximal policy optimization (Schulman et al. 2017): several epochs over each rollout, in which
the policy gains nothing by moving further from the one that acted than a clip range. With the
details that implementations share (Huang et al. 2022); the defaults are those of its Atari games.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from rlplay import policy_gradient
from rlplay.core import Range, Spec, Trajectory
from rlplay.policy_gradient import PolicyGradient
from rlplay.rollout import divides, explained_variance, mean, normalized, shuffled
from rlplay.targets import gae


@dataclass(frozen=True)
class Config(policy_gradient.Config):
    name: Literal["ppo"] = "ppo"
    trace: Annotated[float, Range(0, 1)] = 0.95
    """Lambda of the advantages: 0 looks one step ahead, 1 to the end (Schulman et al. 2016)."""
    epochs: Annotated[int, Range(1)] = 4
    """How often each rollout is learned from. Schulman et al. 2017: 3 for Atari, 10 for robots."""
    batch_size: Annotated[int, Range(1)] = 256
    """Decisions in one update; must divide env.num_envs times agent.horizon. A multiple of
    agent.horizon where the agent is recurrent."""
    clip_range: Annotated[float, Range(0)] = 0.1
    """How far the probability of an action may pay to move, as a share, at first. Schulman et al.
    2017: 0.1 for Atari, 0.2 for robots."""
    clip_range_end: Annotated[float, Range(0)] = 0.0
    """The same after `schedule_steps`."""
    value_clip_range: Annotated[float, Range(0)] = 0.0
    """How far a value may pay to move; 0 for as far as it likes. In Huang et al. 2022, 0.1 for
    Atari and 0.2 for robots; Andrychowicz et al. 2021 found that it does not help."""
    value_weight: Annotated[float, Range(0)] = 0.5
    """Weight of the values' squared error beside the policy's gain."""
    max_kl: Annotated[float, Range(0)] = 0.0
    """Stop the epochs where the policy has moved further than this from the one that acted,
    Kullback-Leibler divergence in nats; 0 for never."""
    normalize_advantages: bool = True
    """Bring the advantages of each batch to mean 0 and deviation 1."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> PPO:
        """Build the agent. Raises Mistake where it cannot play in this world, and where batches do
        not divide a rollout."""
        if learns:
            whole = self.recurrent.name != "none"
            divides(self.batch_size, spec.num_envs, self.horizon, whole)
        return PPO(self, spec, seed)


class PPO(PolicyGradient):
    def __init__(self, config: Config, spec: Spec, seed: int) -> None:
        super().__init__(config, spec, seed)
        self.config = config
        self.clip_range = self.schedule(config.clip_range, config.clip_range_end)

    def improve(self, trajectory: Trajectory) -> dict[str, float]:
        """Make all updates on a trajectory [T, N]. Returns metrics, means over the updates."""
        config, rollout = self.config, self.rollout(trajectory)
        advantage = gae(*rollout.earnings(), config.trace)
        flat = rollout.flat(advantage=advantage, returns=rollout.value[:-1] + advantage)
        for batch in shuffled(flat, config.batch_size, config.epochs, self.shuffling):
            approx_kl = self.update(batch)
            if config.max_kl and approx_kl > config.max_kl:
                break
        metrics = self.descent.metrics(flat)
        known = explained_variance(flat["value"], flat["returns"], flat["weight"])
        clip_range = self.clip_range(self.num_seen)
        return metrics | {"train/explained_variance": known, "train/clip_range": clip_range}

    def update(self, batch: dict[str, Tensor]) -> Tensor:
        """Make one step of gradient descent on a batch; return how far the policy had moved before
        it, Kullback-Leibler divergence, []."""
        config, weight, returns = self.config, batch["weight"], batch["returns"]
        clip_range = self.clip_range(self.num_seen)
        advantage = batch["advantage"]
        if config.normalize_advantages:
            advantage = normalized(advantage, weight)
        policy, value = self.judge(batch)
        log_ratio = weight * (policy.log_prob(batch["sample"]) - batch["log_prob"])
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
        gain = mean(torch.minimum(ratio * advantage, clipped * advantage), weight)
        error = (value - returns).square()
        if width := config.value_clip_range:
            near = batch["value"] + (value - batch["value"]).clamp(-width, width)
            error = torch.maximum(error, (near - returns).square())
        value_loss = mean(error, weight)
        entropy = mean(policy.entropy(), weight)
        entropy_weight = self.entropy_weight(self.num_seen)
        loss = config.value_weight * value_loss - gain - entropy_weight * entropy
        with torch.no_grad():
            approx_kl = mean(ratio - 1 - log_ratio, weight)
            clip_fraction = mean(((ratio - 1).abs() > clip_range).float(), weight)
        self.descent.step(
            loss,
            policy_gradient_loss=-gain,
            value_loss=value_loss,
            entropy=entropy,
            approx_kl=approx_kl,
            clip_fraction=clip_fraction,
        )
        return approx_kl
