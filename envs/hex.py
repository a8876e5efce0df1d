"""Hex (Piet Hein 1942, John Nash 1948): join your two sides of a rhombus of hexagons by a chain.

Player 0 joins top and bottom, player 1 left and right; one of them always does, so no game is
drawn. There is no swap after the first move. Cells of one row touch, and (r, c) touches (r - 1, c),
(r - 1, c + 1), (r + 1, c) and (r + 1, c - 1):

     a b c            An action is a cell, row by row from the top. A player's stones are one word
    1 . . .           a line from her first side to her second: rows with column c at bit c for
     2 . . .          player 0, columns with row r at bit r for player 1. A board turned over so
      3 . . .         has the same neighbours, so both join their sides by the same rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase
from typing import Annotated, Literal

import numpy as np
from numba import njit

from rlplay.core import Array, Range
from rlplay.game import (
    MARGIN,
    NOBODY,
    SIDE,
    BoardGame,
    GameEnv,
    cell_names,
    scores,
    standing,
    stone,
    with_others,
)
from rlplay.palette import AMBER, BLUE, LINE, NIGHT, SLATE, SNOW

LARGEST = 13
BOARD = np.dtype(
    [
        ("stones", np.int16, (2, LARGEST)),
        ("player", np.int8),
        ("over", np.bool_),
        ("winner", np.int8),
    ]
)


@dataclass(frozen=True)
class Config:
    name: Literal["hex"] = "hex"
    num_envs: Annotated[int, Range(1)] = 1
    """Boards side by side."""
    random_opening: Annotated[int, Range(0, 60)] = 0
    """Up to so many moves are played at random before the players take over."""
    size: Annotated[int, Range(3, LARGEST)] = 7
    """Rows and columns of the board; 11 in Hein's game."""

    @property
    def world(self) -> str:
        return f"hex-{self.size}x{self.size}"

    def rules(self) -> Hex:
        return Hex(self.size)

    def make(self, *, render: bool = False) -> GameEnv:
        return GameEnv(
            self.rules(), self.num_envs, random_opening=self.random_opening, render=render
        )

    def for_evaluation(self) -> Config:
        """Return itself: games are scored as they are trained on."""
        return self


class Hex(BoardGame):
    """The rules. Observations are [3, size, size]; the last plane is 1 where player 1 moves, whose
    sides are left and right."""

    dtype = BOARD
    observation_shape: tuple[int, int, int]

    def __init__(self, size: int = 7) -> None:
        self.size = size
        self.name = f"hex-{size}x{size}"
        self.num_actions = self.max_moves = size * size
        self.observation_shape = (3, size, size)
        self.action_names = cell_names(size, size)
        cells = np.arange(size * size)
        self.symmetries = with_others(np.stack([cells, cells[::-1]]))  # half a turn

    def follow(self, state: Array, action: Array, following: Array) -> int:
        return play(state, action, following, self.size)

    def action_mask(self, state: Array) -> Array:
        return action_mask(state, self.size)

    def observe(self, state: Array) -> Array:
        return observe(state, self.size)

    def rollout(self, state: Array, generator: np.random.Generator) -> Array:
        return scores(rollout(state, generator, self.size))

    def show(self, state: Array) -> str:
        """Return one board as text: X joins top and bottom, O left and right."""
        heading, *rows, caption = super().show(state).split("\n")
        return "\n".join([heading, *(" " * r + row for r, row in enumerate(rows)), caption])

    def draw(self, state: Array, last: int = -1) -> Array:
        board = state.reshape(())
        return rhombus(self.cells(board), last, standing(board))

    def middles(self) -> tuple[Array, float]:
        return middles(self.size)


@njit(cache=True)
def spread(chain, line):  # int64 twice -> int64
    """Return the stones of a line that are in the chain or side by side with it."""
    while True:
        longer = (chain | chain << 1 | chain >> 1) & line
        if longer == chain:
            return chain
        chain = longer


@njit(cache=True)
def joined(lines, size, chain):  # [13] int16, int64, [13] int64 -> bool
    """Return whether a chain joins the first line to the last: what the first line reaches, to and
    fro until it grows no more. Writes that into `chain`."""
    chain[0] = lines[0]
    chain[1:] = 0
    while True:
        for r in range(1, size):
            above = chain[r - 1]
            chain[r] = spread((chain[r] | above | above >> 1) & lines[r], lines[r])
        if chain[size - 1]:
            return True
        grows = False
        for r in range(size - 2, 0, -1):
            before, below = chain[r], chain[r + 1]
            chain[r] = spread((before | below | below << 1) & lines[r], lines[r])
            grows |= chain[r] != before
        if not grows:
            return False


@njit(cache=True)
def taken(stones, row, column):  # [2, 13] int16, int64 twice -> int64
    return (stones[0, row] >> column | stones[1, column] >> row) & 1


@njit(cache=True)
def put(stones, player, row, column):  # [2, 13] int16, int64 each
    if player == 0:
        stones[0, row] |= 1 << column
    else:
        stones[1, column] |= 1 << row


@njit(cache=True)
def play(state, action, following, size):  # [N] BOARD, [N] int64, [N] BOARD, int64 -> int64
    """Put a stone on each board that is not finished; return the first where the cell is not free,
    or -1."""
    chain = np.empty(LARGEST, np.int64)
    for i in range(len(state)):
        following[i] = state[i]
        if state[i].over:
            continue
        row, column = action[i] // size, action[i] % size
        if row < 0 or row >= size or taken(state[i].stones, row, column):
            return i
        stones, mover = following[i].stones, state[i].player
        put(stones, mover, row, column)
        following[i].player = 1 - mover
        following[i].over = joined(stones[mover], size, chain)
        following[i].winner = mover if following[i].over else NOBODY
    return -1


@njit(cache=True)
def action_mask(state, size):  # [N] BOARD, int64 -> [N, A] bool
    mask = np.empty((len(state), size * size), np.bool_)
    for i in range(len(state)):
        stones, over = state[i].stones, state[i].over
        for row in range(size):
            for column in range(size):
                mask[i, row * size + column] = over or not taken(stones, row, column)
    return mask


@njit(cache=True)
def observe(state, size):  # [N] BOARD, int64 -> [N, 3, size, size] float32
    planes = np.empty((len(state), 3, size, size), np.float32)
    for i in range(len(state)):
        player, stones = state[i].player, state[i].stones
        for row in range(size):
            for column in range(size):
                planes[i, player, row, column] = stones[0, row] >> column & 1
                planes[i, 1 - player, row, column] = stones[1, column] >> row & 1
        planes[i, 2] = player
    return planes


@njit(cache=True)
def rollout(state, generator, size):  # [N] BOARD, int64 -> [N] int8
    """Play at random to the end; return who won. Whoever has joined her sides still has when the
    board is full, so it is filled: half of the free cells, all choices equally likely, go to the
    player who moves (Knuth's selection sampling)."""
    winner = np.empty(len(state), np.int8)
    stones = np.empty((2, LARGEST), np.int16)
    chain = np.empty(LARGEST, np.int64)
    for i in range(len(state)):
        winner[i], player = state[i].winner, state[i].player
        if state[i].over:
            continue
        stones[:] = state[i].stones
        num_free = 0
        for cell in range(size * size):
            num_free += not taken(stones, cell // size, cell % size)
        wanted = (num_free + 1) // 2
        for row in range(size):
            for column in range(size):
                if not taken(stones, row, column):
                    if generator.random() * num_free < wanted:
                        put(stones, player, row, column)
                        wanted -= 1
                    num_free -= 1
        winner[i] = player if joined(stones[player], size, chain) else 1 - player
    return winner


def middles(size: int) -> tuple[Array, float]:
    """Return the middle of each cell of `rhombus`, row by row, [H * H, 2] pixels across and down,
    and how far those of a row lie apart."""
    pitch = 2 * SIDE / (3 * size)
    row, column = np.indices((size, size)).reshape(2, -1)
    places = np.stack([column + row / 2 + 0.5, 0.866 * row + 0.577], 1)
    return MARGIN + pitch * places, pitch


def rhombus(cells: Array, marked: int = -1, caption: str = "") -> Array:
    """Draw cells [H, H] (0, 1, NOBODY) as hexagons with stones, amber for player 0 and blue for
    player 1, each player's sides in her colour, one cell marked: [H', W', 3] uint8."""
    from PIL import Image, ImageDraw, ImageFont

    size, edge = len(cells), 2 * MARGIN  # all twice as large as in the end
    places, pitch = middles(size)
    unit = 2 * pitch  # from cell to cell of a row
    wide, tall = (1.5 * size - 0.5) * unit, (0.866 * size + 0.289) * unit
    image = Image.new("RGB", (edge + 4 * round(wide / 4) + edge, 2 * edge + 4 * round(tall / 4)))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, *image.size), NIGHT)
    small, large = (ImageFont.load_default(2 * points) for points in (13, 16))
    angles = np.pi / 180 * np.arange(-90, 271, 60)  # of the corners, from the topmost clockwise
    corners = np.stack([np.cos(angles), np.sin(angles)], 1) * unit * 0.577
    beyond = ((-1, 1), (0, 1), (1, 0), (1, -1), (0, -1), (-1, 0))  # the cells at the six sides
    for (r, c), (x, y) in zip(np.ndindex(size, size), 2 * places, strict=True):
        shape = [(x + across, y + down) for across, down in corners]
        draw.polygon(shape, LINE, NIGHT, max(2, round(unit / 20)))
        for side, (down, right) in enumerate(beyond):
            if not 0 <= r + down < size or not 0 <= c + right < size:
                colour = BLUE if 0 <= r + down < size else AMBER
                draw.line(shape[side : side + 2], colour, max(2, round(unit / 12)))
        if cells[r, c] != NOBODY:
            stone(draw, x, y, 0.34 * unit, int(cells[r, c]))
        if r * size + c == marked:
            draw.circle((x, y), 0.1 * unit, SNOW)
        if r == 0:
            draw.text((x - unit / 4, edge / 2), ascii_lowercase[c], SLATE, small, "mm")
        if c == 0:
            draw.text((x - unit / 2 - edge / 3, y), str(r + 1), SLATE, small, "mm")
    draw.text((image.width / 2, image.height - edge / 2), caption, SNOW, large, "mm")
    return np.array(image.reduce(2))
