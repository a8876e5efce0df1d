"""Numbers that change with time, such as the exploration rate of DQN (Mnih et al., 2015).

A schedule is a function of the agent step and remembers nothing, so resuming it needs no state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

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
