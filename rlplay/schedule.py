"""Numbers that change with time, such as the exploration rate of DQN (Mnih et al., 2015).

A schedule is a function of the agent step and remembers nothing, so resuming it needs no state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from rlplay.core import Range


@dataclass(frozen=True)
class Linear:
    """A straight line from `start` to `end`, and `end` ever after."""

    start: float
    """Value at agent step 0."""
    end: float
    """Value from agent step `duration` on."""
    duration: Annotated[int, Range(1)]
    """Length of the way from start to end, agent steps."""

    def __call__(self, step: int) -> float:
        progress = min(max(step / self.duration, 0.0), 1.0)
        return (1 - progress) * self.start + progress * self.end


def linear(start: float, end: float, duration: int) -> Linear:
    """Return a straight line; one of duration 0, for a length that is not known, never leaves its
    start."""
    return Linear(start, end if duration else start, max(duration, 1))


@dataclass(frozen=True)
class Decay:
    """A factor on the learning rate over a training: a warm-up from 0 to 1, then 1 at first and
    less later."""

    name: Literal["constant", "cosine", "step"] = "constant"
    """cosine falls to 0 along half a wave (Loshchilov & Hutter 2017); step at each of `drops`."""
    warmup: Annotated[float, Range(0, 0.9)] = 0.0
    """Share of the training in which it rises from 0 in a straight line (Goyal et al. 2017)."""
    drops: tuple[Annotated[float, Range(0, 1)], ...] = (0.5, 0.75)
    """Of step: shares of the training after which the factor falls."""
    factor: Annotated[float, Range(0, 1)] = 0.1
    """Of step: what it is multiplied by then."""

    def __call__(self, progress: float) -> float:
        """Return the factor after a share of the training, 0..1."""
        rise = min(progress / self.warmup, 1.0) if self.warmup else 1.0
        if self.name == "cosine":
            rest = max(progress - self.warmup, 0.0) / (1 - self.warmup)
            return rise * (1 + math.cos(math.pi * min(rest, 1.0))) / 2
        if self.name == "step":
            return rise * self.factor ** sum(progress >= drop for drop in self.drops)
        return rise
