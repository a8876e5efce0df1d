"""A memory corridor (the T-maze of Bakker 2002): what is seen at its start decides, many steps
later, which way is right at its end. Nothing on the way tells.

    cue . . . . . . . fork      cell 0 shows the cue, the others look alike, the fork shows itself

Forward goes one cell on; at the fork left and right end the episode, which earns 1 where it is the
side of the cue. Other moves do nothing. Without memory none earns more than 0.5 on the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from gymnasium.spaces import Discrete

from rlplay.core import Array, Mistake, Range, Spec, State, Step, check_action
from rlplay.palette import AMBER, GREEN, LINE, NIGHT, RED, Ink

LEFT, RIGHT, FORWARD = range(3)
CUE_LEFT, CUE_RIGHT, CORRIDOR, FORK = range(4)
WIDTH = 640  # of the picture, pixels


@dataclass(frozen=True)
class Config:
    name: Literal["memory_corridor"] = "memory_corridor"
    num_envs: Annotated[int, Range(1)] = 1
    """Corridors side by side."""
    length: Annotated[int, Range(1, 1000)] = 10
    """Steps from the cue to the fork."""
    max_steps: Annotated[int, Range(0)] = 100
    """Agent steps after which a walk is truncated; 0 for never."""

    @property
    def world(self) -> str:
        return f"memory-corridor-{self.length}"

    def make(self, *, render: bool = False) -> MemoryCorridor:
        """Build the corridors."""
        return MemoryCorridor(self, render)

    def for_evaluation(self) -> Config:
        """Return itself: this world is scored as it is trained on."""
        return self


class MemoryCorridor:
    """N corridors as arrays. Observations are one of four, [N] int64: a cue that points to the left
    or right, the corridor, the fork."""

    def __init__(self, config: Config, render: bool) -> None:
        self.length, self.max_steps, self.drawn = config.length, config.max_steps, render
        self.spec = Spec(
            num_envs=config.num_envs,
            observation_space=Discrete(4),
            action_space=Discrete(3),
            frame_rate=5.0,
            action_names=("left", "right", "forward"),
            exact_resume=True,
        )
        self.step_now: Step | None = None

    def reset(self, seed: int) -> Step:
        n = self.spec.num_envs
        self.generator = np.random.default_rng(seed)
        self.side = self.generator.integers(2, size=n)  # [N] LEFT or RIGHT
        self.cell, self.time = np.zeros(n, np.int64), np.zeros(n, np.int64)  # [N]
        self.right = np.zeros(n, bool)  # [N] has just turned to the side of the cue
        return self._show(np.zeros(n, bool))

    def step(self, action: Array) -> Step:
        """Apply `action` [N]. Raises ValueError where one is out of range."""
        action = check_action(action, self.spec)
        begins = self._standing().done
        turns = ~begins & (self.cell == self.length) & (action != FORWARD)
        self.right = turns & (action == self.side)
        forward = (action == FORWARD) & (self.cell < self.length)
        self.cell = np.where(begins, 0, self.cell + forward)
        self.time = np.where(begins, 0, self.time + 1)
        side = self.generator.integers(2, size=len(action))
        self.side = np.where(begins, side, self.side)
        return self._show(turns)

    def render(self) -> Array:
        """Return env 0 as a picture, [H, W, 3] uint8."""
        if not self.drawn:
            raise RuntimeError("only an env made with render=True can be drawn")
        step = self._standing()
        cue = None if self.cell[0] else int(self.side[0])
        ink = AMBER
        if step.terminated[0]:
            ink = GREEN if step.reward[0, 0] else RED
        return picture(int(self.cell[0]), self.length, cue, ink)

    def state_dict(self) -> State:
        return {
            "cell": self.cell,
            "side": self.side,
            "time": self.time,
            "right": self.right,
            "terminated": self._standing().terminated,
            "generator": self.generator.bit_generator.state,
        }

    def load_state_dict(self, state: State) -> Step:
        """Restore a saved world. Raises Mistake where it has more or fewer envs."""
        num_saved = len(state["cell"])
        if num_saved != self.spec.num_envs:
            raise Mistake(f"the run was saved with {num_saved} envs: set env.num_envs={num_saved}")
        self.generator.bit_generator.state = state["generator"]
        self.cell, self.side, self.time = (np.array(state[k]) for k in ("cell", "side", "time"))
        self.right = np.array(state["right"])
        return self._show(np.array(state["terminated"]))

    def close(self) -> None:
        pass

    def _standing(self) -> Step:
        if self.step_now is None:
            raise RuntimeError("call reset first")
        return self.step_now

    def _show(self, terminated: Array) -> Step:
        seen = np.where(self.cell == 0, self.side, CORRIDOR)
        late = self.time >= self.max_steps if self.max_steps else np.zeros(len(seen), bool)
        self.step_now = Step.at(
            np.where(self.cell == self.length, FORK, seen),
            self.spec.num_actions,
            reward=self.right.astype(np.float32)[:, None],
            terminated=terminated,
            truncated=late & ~terminated,
        )
        return self.step_now


def picture(cell: int, length: int, cue: int | None, ink: Ink) -> Array:
    """Draw the corridor from the left to the right and the fork at its end, the player in `ink`,
    and beside the first cell the cue while it is seen; left is up. [H, W, 3] uint8."""
    from PIL import Image, ImageDraw

    unit = WIDTH / (length + 2)
    tall = max(unit, 24.0)
    image = Image.new("RGB", (WIDTH, 2 * round(2.5 * tall)), NIGHT)
    draw = ImageDraw.Draw(image)
    middle = image.height / 2
    end = (length + 0.5) * unit
    draw.rectangle((0.5 * unit, middle - tall / 2, end + unit, middle + tall / 2), LINE)
    draw.rectangle((end, middle - 2 * tall, end + unit, middle + 2 * tall), LINE)
    if cue is not None:
        way = 1 if cue == RIGHT else -1
        x, y = unit, middle + way * 0.7 * tall
        points = [(x - tall / 3, y), (x + tall / 3, y), (x, y + way * tall)]
        draw.polygon(points, AMBER)
    x, radius = (cell + 1) * unit, 0.35 * tall
    draw.ellipse((x - radius, middle - radius, x + radius, middle + radius), ink)
    return np.array(image)
