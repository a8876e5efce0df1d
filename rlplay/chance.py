"""From where an agent that acts at random takes its random numbers: from those that are saved while
it learns, and from others, that leave no trace, while it only shows what it knows.

So a run goes on the same however often it was evaluated or drawn on the way.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Chance:
    """The random numbers for acting without exploring. They depend on nothing but the state of the
    saved ones when acting without exploring began, so that nothing of them need be saved."""

    def __init__(self) -> None:
        self.since: Any = None  # the state of the saved ones then
        self.apart: np.random.Generator | None = None

    def of(self, generator: np.random.Generator, explore: bool) -> np.random.Generator:
        """Return where to draw from: the saved `generator` to explore, or else another."""
        if explore:
            return generator
        state = generator.bit_generator.state
        if self.apart is None or state != self.since:
            source: Any = generator.bit_generator
            self.since, self.apart = state, np.random.Generator(source.jumped())  # far ahead of it
        return self.apart
