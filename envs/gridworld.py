"""Gridworlds: text maps with walls, pits, cliffs, wind (Sutton & Barto 2018, chapters 4, 6, 8).

A map is rows of letters: `.` floor, `#` wall, `S` start, `G` goal and `X` pit, which end the
episode, `C` cliff, from which one is put back to the start. A wall or the edge stops a move. The
wind of the column that is left pushes upwards, cell by cell. The tables are exact, and what is
played is drawn from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from rlplay.core import Array, Layout, Mistake, Range, nearest
from rlplay.markov import MarkovEnv
from rlplay.model import Model
from rlplay.palette import AMBER, BLUE, GREEN, LINE, NIGHT, RED, SLATE, SNOW, Ink

if TYPE_CHECKING:
    from PIL import ImageDraw

MAPS = {
    "4x4": ("G...", "....", "....", "...G"),  # example 4.1
    "windy": (*[".........."] * 3, "S......G..", *[".........."] * 3),  # example 6.5
    "cliff": (*["............"] * 3, "SCCCCCCCCCCG"),  # example 6.6
    "maze": (  # figure 8.2
        ".......#G",
        "..#....#.",
        "S.#....#.",
        "..#......",
        ".....#...",
        ".........",
    ),
}
WINDS = {"windy": (0, 0, 0, 1, 1, 1, 2, 2, 1, 0)}
MOVES = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}  # clockwise
HEIGHT, MAX_WIDTH = 420, 1200  # of the picture, pixels
TRAIL = 12  # moves shown behind the agent


@dataclass(frozen=True)
class Config:
    name: Literal["gridworld"] = "gridworld"
    num_envs: Annotated[int, Range(1)] = 1
    """Worlds side by side."""
    map: str | tuple[str, ...] = "4x4"
    """4x4, windy, cliff or maze; or rows of letters: . floor, # wall, S start, G goal (ends),
    X pit (ends), C cliff (back to the start)."""
    wind: tuple[Annotated[int, Range(-100, 100)], ...] = ()
    """By how many cells each column pushes upwards; empty for the wind that the map comes with."""
    slip: Annotated[float, Range(0, 1)] = 0.0
    """Probability that a move goes to one of its two sides instead, half of it to each."""
    step_reward: float = -1.0
    """Earned by every move. Sutton & Barto, figure 8.2 (maze): 0."""
    goal_reward: float = 0.0
    """Added to it on reaching a goal. Sutton & Barto, figure 8.2 (maze): 1."""
    pit_reward: float = -100.0
    """Earned in its place on falling into a pit or off a cliff."""
    start: Literal["map", "anywhere"] = "map"
    """Where episodes begin: at an S of the map, or anywhere on the floor, as they do where the map
    has no S."""
    max_steps: Annotated[int, Range(0)] = 500
    """Agent steps after which an episode is truncated; 0 for never."""

    @property
    def world(self) -> str:
        return f"gridworld-{self.map}" if self.map in MAPS else "gridworld"

    def make(self, *, render: bool = False) -> MarkovEnv:
        """Build the world. Raises Mistake where the map is none."""
        grid = Grid(self)
        return MarkovEnv(
            tables(grid, self),
            self.num_envs,
            max_steps=self.max_steps,
            action_names=tuple(MOVES),
            layout=Layout(
                cells=np.column_stack([np.zeros(len(grid.cells), np.int64), grid.cells]),
                arrows=np.array(list(MOVES.values())),
                marks={s: letter for s, letter in enumerate(grid.letter) if letter != "."},
            ),
            draw=drawing(grid) if render else None,
        )

    def for_evaluation(self) -> Config:
        """Return itself: this world is scored as it is trained on."""
        return self


class Grid:
    """A map that was read and found sound. States are the cells that are no wall, in reading
    order: letter [S], cells [S, 2] row and column; `number` [H + 2, W + 2] is the state of each
    cell within a frame of walls, -1 where there is none; wind is [W], starts [S] bool."""

    def __init__(self, config: Config) -> None:
        """Raises Mistake for a map with an unknown letter, ragged rows, no goal or no start."""
        if isinstance(config.map, str) and config.map not in MAPS:
            hint = nearest(config.map, list(MAPS)) or f"; choose from {', '.join(MAPS)}"
            raise Mistake(f"no map called {config.map!r}{hint}, or give env.map a list of rows")
        rows = MAPS[config.map] if isinstance(config.map, str) else config.map
        self.height, self.width = len(rows), max(map(len, rows), default=0)
        for r, row in enumerate(rows):
            if unknown := sorted(set(row) - set(".#SGXC")):
                raise Mistake(
                    f"row {r + 1} of the map has the letter {unknown[0]!r}; the letters are"
                    " . floor, # wall, S start, G goal, X pit, C cliff"
                )
            if len(row) != self.width:
                raise Mistake(
                    f"row {r + 1} of the map is {len(row)} letters long and another one"
                    f" {self.width}; make all rows equally long"
                )
        letters = np.array([list(row) for row in rows], "U1").reshape(self.height, self.width)
        self.cells = np.argwhere(letters != "#")
        self.letter = letters[letters != "#"]
        self.number = np.full((self.height + 2, self.width + 2), -1)
        self.number[tuple(self.cells.T + 1)] = np.arange(len(self.cells))
        own = WINDS.get(config.map, ()) if isinstance(config.map, str) else ()
        self.wind = np.array(config.wind or own or [0] * self.width)
        if len(self.wind) != self.width:
            raise Mistake(
                f"env.wind lists {len(self.wind)} columns and the map has {self.width}; give each"
                " column a number"
            )
        if "G" not in self.letter:
            raise Mistake("the map has no goal: mark at least one cell with G")
        if "C" in self.letter and "S" not in self.letter:
            raise Mistake("a cliff C sends back to the start: mark at least one cell with S")
        self.starts = self.letter == "S"
        if config.start == "anywhere" or not self.starts.any():
            self.starts = np.isin(self.letter, [".", "S"])
        if not self.starts.any():
            raise Mistake("the map has no place to start: mark one with S, or leave some floor .")


def tables(grid: Grid, config: Config) -> Model:
    """Return the exact model. Raises Mistake where a start has no way to a goal."""
    standing = np.flatnonzero(np.isin(grid.letter, [".", "S"]))
    landing = [arrivals(grid, *move)[standing] for move in MOVES.values()]
    turns = ((0, 1 - config.slip), (-1, config.slip / 2), (1, config.slip / 2))
    back = np.flatnonzero(grid.letter == "S") if "C" in grid.letter else [0]  # from a cliff
    rows = []
    for action, (turn, share), start in product(range(len(MOVES)), turns, back):
        if share == 0:
            continue
        target = landing[(action + turn) % len(MOVES)]
        letter = grid.letter[target]
        following = np.where(letter == "C", start, target)
        reward = config.step_reward + config.goal_reward * (letter == "G")
        reward[np.isin(letter, ["X", "C"])] = config.pit_reward
        ends = np.isin(letter, ["X", "G"])
        columns = (standing, action, following, share / len(back), reward, ends)
        rows.append(np.column_stack(np.broadcast_arrays(*columns)))
    model = Model.of(
        len(grid.cells), len(MOVES), np.concatenate(rows), grid.starts / grid.starts.sum()
    )
    lost = np.flatnonzero(grid.starts & ~reaching(model, grid.letter == "G"))
    if len(lost):
        row, column = grid.cells[lost[0]] + 1
        raise Mistake(
            f"no goal can be reached from the start in row {row}, column {column} of the map"
        )
    return model


def arrivals(grid: Grid, down: int, right: int) -> Array:
    """Return where a move leads from each state, wind included, [S] int64: first sideways, then up
    and down, each as far as there is no wall."""
    row, column = grid.cells.T + 1
    fall = down - grid.wind[column - 1]
    column = np.where(grid.number[row, column + right] >= 0, column + right, column)
    for k in range(np.abs(fall).max()):
        further = row + np.sign(fall) * (k < np.abs(fall))
        row = np.where(grid.number[further, column] >= 0, further, row)
    return grid.number[row, column]


def reaching(model: Model, goals: Array) -> Array:
    """Return which states have a way to one of the `goals` [S] bool, as [S] bool."""
    source = model.num_states  # one more node, from which all goals are reached backwards
    goal = np.flatnonzero(goals)
    tail = np.concatenate([model.next_state, np.full(len(goal), source)])
    head = np.concatenate([model.pair // model.num_actions, goal])
    graph = csr_array((np.ones(len(tail)), (tail, head)), shape=(source + 1, source + 1))
    found = breadth_first_order(graph, source, return_predecessors=False)
    return np.isin(np.arange(source), found)


def drawing(grid: Grid) -> Callable[[list[int]], Array]:
    """Return the function that draws env 0: the map, where it stands, and its last moves."""
    from PIL import Image, ImageDraw

    size = max(2, min(HEIGHT // grid.height, MAX_WIDTH // grid.width) // 2 * 2)
    unit = 2 * size  # drawn twice as large, for smooth edges
    board = Image.new("RGB", (grid.width * unit, grid.height * unit), NIGHT)
    draw = ImageDraw.Draw(board)
    for row, column in np.ndindex(grid.height, grid.width):
        state = grid.number[row + 1, column + 1]
        letter = "#" if state < 0 else str(grid.letter[state])
        tile(draw, letter, int(grid.wind[column]), column * unit, row * unit, unit)

    def picture(path: list[int]) -> Array:
        image = board.copy()
        draw = ImageDraw.Draw(image)
        points = [((c + 0.5) * unit, (r + 0.5) * unit) for r, c in grid.cells[path[-TRAIL - 1 :]]]
        for i, ends in enumerate(pairwise(points)):
            age = len(points) - 2 - i
            draw.line(ends, mixed(AMBER, LINE, 0.6 * (1 - age / TRAIL)), max(1, unit // 16))
        for (x, y), radius, ink in [(points[-1], 0.3, NIGHT), (points[-1], 0.26, AMBER)]:
            r = radius * unit
            draw.ellipse((x - r, y - r, x + r, y + r), ink)
        return np.array(image.reduce(2))

    return picture


def tile(draw: ImageDraw.ImageDraw, letter: str, wind: int, x: int, y: int, unit: int) -> None:
    """Draw one cell, its upper left corner at (x, y)."""
    from PIL import ImageFont

    ink: dict[str, Ink] = {"G": GREEN, "X": RED, "C": RED, "S": BLUE}
    if letter == "#":
        draw.rectangle((x, y, x + unit - 1, y + unit - 1), mixed(SLATE, NIGHT, 0.55))
        return
    gap = unit // 40
    box = (x + gap, y + gap, x + unit - gap - 1, y + unit - gap - 1)
    fill = mixed(ink[letter], NIGHT, 0.3) if letter in ink else LINE
    draw.rounded_rectangle(box, unit // 12, fill)
    for k in range(abs(wind) if letter == "." else 0):
        up = -np.sign(wind) * unit / 10
        tip, middle = y + unit / 2 + (2 * k - abs(wind) + 1 - 0.5) * unit / 10, x + unit / 2
        points = [(middle - unit / 7, tip - up), (middle, tip), (middle + unit / 7, tip - up)]
        draw.line(points, mixed(SLATE, fill, 0.5), max(1, unit // 30), joint="curve")
    if letter in ink and unit >= 24:
        font = ImageFont.load_default(unit / 3)
        draw.text((x + unit / 2, y + unit / 2), letter, mixed(SNOW, fill, 0.8), font, anchor="mm")


def mixed(ink: Ink, ground: Ink, share: float) -> Ink:
    """Return `share` of one ink on a ground of another."""
    red, green, blue = (
        round(share * a + (1 - share) * b) for a, b in zip(ink, ground, strict=True)
    )
    return red, green, blue
