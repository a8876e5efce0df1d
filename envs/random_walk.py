"""The random walk (Sutton & Barto 2018, example 6.2; with 19 states, example 7.1).

States in a row, and an end on either side: stepping off the right one earns 1. The book's walk is
a coin's, without actions; here each step goes left or right as the player says, so that the walk is
what the uniform policy does, and from state i of n it ends on the right with probability
i / (n + 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from rlplay.core import Array, Layout, Mistake, Range
from rlplay.markov import MarkovEnv
from rlplay.model import Model
from rlplay.palette import AMBER, BLUE, GREEN, LINE, NIGHT, RED

WIDTH, HEIGHT, TRAIL = 640, 420, 16  # of the picture, pixels; steps shown behind the walker
MOVES = {"left": -1, "right": 1}


@dataclass(frozen=True)
class Config:
    name: Literal["random_walk"] = "random_walk"
    num_envs: Annotated[int, Range(1)] = 1
    """Walks side by side."""
    num_states: Annotated[int, Range(1, 1_000_000)] = 5
    """States between the two ends, an odd number; walks begin in the middle."""
    left_reward: float = 0.0
    """Earned at the left end. Sutton & Barto, example 7.1 with 19 states: -1."""
    right_reward: float = 1.0
    """Earned at the right end."""
    max_steps: Annotated[int, Range(0)] = 0
    """Agent steps after which a walk is truncated; 0 for never, as in the book."""

    @property
    def world(self) -> str:
        return f"random-walk-{self.num_states}"

    def make(self, *, render: bool = False) -> MarkovEnv:
        """Build the walks. Raises Mistake where there is no state in the middle."""
        if self.num_states % 2 == 0:
            raise Mistake(
                "a random walk begins in the middle: set env.num_states to an odd number, not"
                f" {self.num_states}"
            )
        num_cells, middle = self.num_states + 2, (self.num_states + 1) // 2
        return MarkovEnv(
            self.tables(),
            self.num_envs,
            max_steps=self.max_steps,
            action_names=tuple(MOVES),
            layout=Layout(
                cells=np.arange(num_cells)[:, None] * [0, 0, 1],
                arrows=np.array([(0, move) for move in MOVES.values()]),
                marks={middle: "S"},
            ),
            draw=(lambda path: picture(path, num_cells)) if render else None,
        )

    def for_evaluation(self) -> Config:
        """Return itself: this world is scored as it is trained on."""
        return self

    def tables(self) -> Model:
        """Return the exact model: states 1..n, and the ends 0 and n + 1."""
        n = self.num_states
        state = np.arange(1, n + 1)
        rows = []
        for action, move in enumerate(MOVES.values()):
            following = state + move
            reward = self.left_reward * (following == 0) + self.right_reward * (following == n + 1)
            over = (following == 0) | (following == n + 1)
            columns = np.broadcast_arrays(state, action, following, 1.0, reward, over)
            rows.append(np.column_stack(columns))
        start = np.arange(n + 2) == (n + 1) // 2
        return Model.of(n + 2, len(MOVES), np.concatenate(rows), start)


def picture(path: list[int], num_cells: int) -> Array:
    """Draw the row of states, where the walker stands, and below it where it came from, time
    running upwards: [H, W, 3] uint8."""
    from PIL import Image, ImageDraw

    wide, high = 2 * WIDTH, 2 * HEIGHT  # drawn twice as large, for smooth edges
    image = Image.new("RGB", (wide, high), NIGHT)
    draw = ImageDraw.Draw(image)
    unit, top = wide / num_cells, high // 12
    tall = min(high / 4, unit)
    radius = max(0.28 * tall, 6)
    for state in range(num_cells):
        ink = {0: RED, num_cells - 1: GREEN}.get(state, LINE)
        box = ((state + 0.03) * unit, top, (state + 0.97) * unit, top + tall)
        draw.rounded_rectangle(box, unit / 10, ink)
    fall = (high - 2 * top - tall) / TRAIL
    heights = [top + tall / 2, *(top + tall + age * fall for age in range(TRAIL))]
    trail = path[: -TRAIL - 2 : -1]  # the newest first
    points = [((state + 0.5) * unit, y) for state, y in zip(trail, heights, strict=False)]
    draw.line(points, BLUE, 6, joint="curve")
    for x, y in points[1:]:
        draw.ellipse((x - 7, y - 7, x + 7, y + 7), BLUE)
    x, y = points[0]
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), AMBER, NIGHT, 4)
    return np.array(image.reduce(2))
