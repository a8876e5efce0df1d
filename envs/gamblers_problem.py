"""The gambler's problem (Sutton & Barto 2018, example 4.3).

A coin comes up heads with a known probability. The gambler stakes some of the capital: heads wins
the stake, tails loses it. Reaching the goal earns 1, ruin nothing, so that the value of a capital
is the probability to reach the goal from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from rlplay.core import Array, Layout, Mistake, Range
from rlplay.markov import MarkovEnv
from rlplay.model import Model
from rlplay.palette import AMBER, GREEN, LINE, NIGHT, RED, SLATE, SNOW

WIDTH, HEIGHT, SHOWN = 640, 420, 40  # of the picture, pixels; bets shown


@dataclass(frozen=True)
class Config:
    name: Literal["gamblers_problem"] = "gamblers_problem"
    num_envs: Annotated[int, Range(1)] = 1
    """Gamblers side by side."""
    goal: Annotated[int, Range(2, 10_000)] = 100
    """Capital at which the gambler has won."""
    heads: Annotated[float, Range(0, 1)] = 0.4
    """Probability that the coin comes up heads, and the stake is won."""
    start: Annotated[int, Range(0)] = 0
    """Capital at the start; 0 for any below the goal, at random."""
    max_steps: Annotated[int, Range(0)] = 0
    """Agent steps after which an episode is truncated; 0 for never."""

    @property
    def world(self) -> str:
        return "gamblers-problem"

    def make(self, *, render: bool = False) -> MarkovEnv:
        """Build the game; action a stakes a + 1. Raises Mistake for a start beyond the goal."""
        if self.start >= self.goal:
            raise Mistake(
                f"a gambler with {self.start} has already won: set env.start below env.goal,"
                f" which is {self.goal}"
            )
        return MarkovEnv(
            self.tables(),
            self.num_envs,
            max_steps=self.max_steps,
            action_names=tuple(f"stake {stake}" for stake in range(1, self.goal // 2 + 1)),
            layout=Layout(
                cells=np.arange(self.goal + 1)[:, None] * [0, 0, 1], axes=("", "capital")
            ),
            draw=(lambda path: picture(path, self.goal)) if render else None,
        )

    def for_evaluation(self) -> Config:
        """Return itself: this world is scored as it is trained on."""
        return self

    def tables(self) -> Model:
        """Return the exact model: states are capitals 0..goal, of which the two ends are terminal;
        stakes are at most the capital, and what is missing to the goal."""
        goal = self.goal
        capital, action = np.mgrid[1:goal, 0 : goal // 2].reshape(2, -1)
        stake = action + 1
        legal = stake <= np.minimum(capital, goal - capital)
        capital, action, stake = capital[legal], action[legal], stake[legal]
        rows = []
        for following, probability in (
            (capital + stake, self.heads),
            (capital - stake, 1 - self.heads),
        ):
            won, over = following == goal, (following == goal) | (following == 0)
            columns = np.broadcast_arrays(capital, action, following, probability, won, over)
            rows.append(np.column_stack(columns))
        start = np.arange(goal + 1) == self.start
        if not self.start:
            start = np.isin(np.arange(goal + 1), [0, goal], invert=True) / (goal - 1)
        return Model.of(goal + 1, goal // 2, np.concatenate(rows), start)


def picture(path: list[int], goal: int) -> Array:
    """Draw the capital after each of the last bets, and as a bar: [H, W, 3] uint8."""
    from PIL import Image, ImageDraw, ImageFont

    wide, high = 2 * WIDTH, 2 * HEIGHT  # drawn twice as large, for smooth edges
    image = Image.new("RGB", (wide, high), NIGHT)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(40)
    left, right, top, bottom = 60, wide - 240, 60, high - 60

    def level(capital: int) -> float:
        return bottom - (bottom - top) * capital / goal

    for capital, ink in ((0, RED), (goal, GREEN)):
        draw.line((left, level(capital), wide - 60, level(capital)), ink, 4)
    trail = path[-SHOWN - 1 :]
    points = [
        (left + (right - left) * i / SHOWN, level(capital)) for i, capital in enumerate(trail)
    ]
    draw.line(points, AMBER, 6, joint="curve")
    for x, y in points:
        draw.ellipse((x - 8, y - 8, x + 8, y + 8), AMBER)
    now = trail[-1]
    draw.rectangle((right + 60, top, wide - 60, bottom), LINE)
    draw.rectangle((right + 60, level(now), wide - 60, bottom), AMBER)
    ink, anchor = (NIGHT, "mt") if now > goal // 8 else (SNOW, "mb")
    edge = level(now) + (14 if anchor == "mt" else -14)
    draw.text(((right + wide) / 2, edge), str(now), ink, font, anchor=anchor)
    draw.text((left, 10), f"goal {goal}", SLATE, font)
    return np.array(image.reduce(2))
