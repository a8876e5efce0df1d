"""Value iteration (Bellman 1957) from the world's model, one sweep for each step that is played.

    V(s) <- max_a (r(s, a) + discount sum_s' P(s' | s, a) V(s'))

Gauss-Seidel uses each new value at once. Prioritized sweeping (Moore & Atkeson 1993) backs up the
state whose value is furthest from what its successors say, and then looks at what leads to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlplay.core import Spec
from rlplay.planners import Planner, Planning
from rlplay.planning import Order, ValueIteration


@dataclass(frozen=True)
class Config(Planning):
    name: Literal["value_iteration"] = "value_iteration"
    order: Order = "synchronous"
    """Which values a backup sees: all of the last sweep (synchronous), the newest (gauss_seidel),
    or the newest with the most urgent state first (prioritized)."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> ValueIterationAgent:
        """Build the agent. Raises Mistake where the world has no model."""
        return ValueIterationAgent(self, spec)


class ValueIterationAgent(Planner):
    config: Config

    def start(self, spec: Spec) -> ValueIteration:
        return ValueIteration(self.tables, self.config.discount, self.config.order)
