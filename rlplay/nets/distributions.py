"""What a policy may do: distributions over actions, one for each kind of action space.

All say the same: `sample`, `mode`, `log_prob`, `entropy`. A sample is what log_prob takes: the
action itself, or, for continuous actions, what they are before they are brought into bounds
(`Gaussian.bounded`). Random numbers come from the generator that is passed, on the CPU, so that the
same seed draws the same on every device. Shape letters: B batch, A actions, D numbers in one
action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ILLEGAL = -1e9
"""Logit of an illegal action: e to this is 0, and unlike minus infinity it makes no nan."""
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
NUM_NODES = 32  # at which the entropy of a squashed Gaussian is integrated


class Distribution(Protocol):
    """Of actions, one for each of B observations."""

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw a sample, [B] int64 or [B, D]."""
        ...

    def mode(self) -> Tensor:
        """Return the likeliest sample, [B] int64 or [B, D]."""
        ...

    def log_prob(self, sample: Tensor) -> Tensor:
        """Return the logarithm of a sample's probability, or of its density, [B]."""
        ...

    def entropy(self) -> Tensor:
        """Return the entropy, [B] nats."""
        ...


class Categorical:
    """One of A actions. Illegal ones are never drawn, and no gradient reaches them."""

    def __init__(self, logits: Tensor, mask: Tensor | None = None) -> None:
        """Of logits [B, A] and the legal actions [B, A] bool, by default all."""
        if mask is not None:
            logits = logits.masked_fill(~mask, ILLEGAL)
        self.logits = logits.log_softmax(1)  # [B, A] logarithms of probabilities

    @cached_property
    def probs(self) -> Tensor:  # [B, A]
        return self.logits.exp()

    def sample(self, generator: torch.Generator) -> Tensor:
        # The highest of logits with Gumbel noise is a fair draw (Gumbel 1954). 1e-30 for log(0).
        noise = torch.rand(self.logits.shape, generator=generator).clamp_(1e-30).log_().neg_()
        return (self.logits - noise.log_().to(self.logits.device)).argmax(1)

    def mode(self) -> Tensor:
        return self.logits.argmax(1)

    def log_prob(self, sample: Tensor) -> Tensor:
        return self.logits.gather(1, sample[:, None])[:, 0]

    def entropy(self) -> Tensor:
        return -(self.probs * self.logits).sum(1)


class MultiCategorical:
    """D independent choices, the d-th one of sizes[d]."""

    def __init__(self, logits: Tensor, sizes: Sequence[int]) -> None:
        """Of the logits of all choices side by side, [B, sum of sizes]."""
        self.parts = [Categorical(part) for part in logits.split(list(sizes), 1)]

    def sample(self, generator: torch.Generator) -> Tensor:
        return torch.stack([part.sample(generator) for part in self.parts], 1)

    def mode(self) -> Tensor:
        return torch.stack([part.mode() for part in self.parts], 1)

    def log_prob(self, sample: Tensor) -> Tensor:
        chosen = zip(self.parts, sample.unbind(1), strict=True)
        return torch.stack([part.log_prob(one) for part, one in chosen]).sum(0)

    def entropy(self) -> Tensor:
        return torch.stack([part.entropy() for part in self.parts]).sum(0)


class Gaussian:
    """D independent normal numbers, for actions in -1..1: cut off there, or, if `squashed`, brought
    there by tanh (Haarnoja et al. 2018). A sample is the number before that. The density is that of
    the number where it is cut off, as PPO has it, and that of the action where it is squashed."""

    def __init__(self, mean: Tensor, log_deviation: Tensor, squashed: bool = False) -> None:
        """Of the mean [B, D] and the logarithm of the standard deviation, [B, D] or [D]."""
        self.mean, self.squashed = mean, squashed
        self.log_deviation = log_deviation.expand_as(mean)

    def sample(self, generator: torch.Generator) -> Tensor:
        noise = torch.randn(self.mean.shape, generator=generator).to(self.mean.device)
        return self.mean + self.log_deviation.exp() * noise

    def mode(self) -> Tensor:
        return self.mean

    def bounded(self, sample: Tensor) -> Tensor:
        """Return the action in -1..1 that a sample stands for, [B, D]."""
        return sample.tanh() if self.squashed else sample.clamp(-1, 1)

    def log_prob(self, sample: Tensor) -> Tensor:
        z = (sample - self.mean) * (-self.log_deviation).exp()
        density = -0.5 * z * z - self.log_deviation - HALF_LOG_TAU
        return (density - log_slope(sample) if self.squashed else density).sum(1)

    def entropy(self) -> Tensor:
        """Return the entropy; of a squashed one by Gauss-Hermite quadrature, for there is no
        formula."""
        entropy = 0.5 + HALF_LOG_TAU + self.log_deviation
        if self.squashed:
            nodes, weights = quadrature(self.mean.device)
            z = self.mean[..., None] + self.log_deviation.exp()[..., None] * nodes  # [B, D, nodes]
            entropy = entropy + log_slope(z) @ weights
        return entropy.sum(1)


def log_slope(x: Tensor) -> Tensor:
    """Return log(1 - tanh(x) ** 2), exact where the slope itself is too small for a float."""
    return 2 * (math.log(2) - x - F.softplus(-2 * x))


@cache
def quadrature(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return nodes and weights of the mean over a standard normal number."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NUM_NODES)
    both = np.array([nodes, weights / weights.sum()], np.float32)
    table = torch.from_numpy(both).to(device)
    return table[0], table[1]
