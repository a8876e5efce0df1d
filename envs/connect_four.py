"""Connect Four (Wexler 1974), 7 columns and 6 rows: four in a line win, a full board is a draw.

An action is a column. A player's stones are the bits of one word (as in John Tromp's Fhourstones);
the seventh bit of a column stays empty, so that no line runs from one column into the next:

     6 13 20 27 34 41 48   always empty
     5 12 19 26 33 40 47   top
     .  .  .  .  .  .  .
     0  7 14 21 28 35 42   bottom
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numba import njit

from envs import _connect_four_solver as solver
from rlplay.core import Array, Range, Symmetries
from rlplay.game import NOBODY, BoardGame, GameEnv, scores

WIDTH, HEIGHT = 7, 6
PITCH = HEIGHT + 1  # bits from column to column
BOARD = np.dtype(
    [("stones", np.uint64, 2), ("player", np.int8), ("over", np.bool_), ("winner", np.int8)]
)
ONE = np.uint64(1)
FULL = np.uint64(sum((1 << HEIGHT) - 1 << c * PITCH for c in range(WIDTH)))
ABOVE = np.uint64(sum(1 << c * PITCH + HEIGHT for c in range(WIDTH)))  # the cells that stay empty
CELLS = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)


@dataclass(frozen=True)
class Config:
    name: Literal["connect_four"] = "connect_four"
    num_envs: Annotated[int, Range(1)] = 1
    """Boards side by side."""
    random_opening: Annotated[int, Range(0, 36)] = 0
    """Up to so many moves are played at random before the players take over."""

    @property
    def world(self) -> str:
        return "connect_four"

    def rules(self) -> ConnectFour:
        return ConnectFour()

    def make(self, *, render: bool = False) -> GameEnv:
        return GameEnv(
            self.rules(), self.num_envs, random_opening=self.random_opening, render=render
        )

    def for_evaluation(self) -> Config:
        """Return itself: games are scored as they are trained on."""
        return self


class ConnectFour(BoardGame):
    """The rules. Observations are [2, 6, 7], the top row first."""

    name = "connect_four"
    num_actions = WIDTH
    dtype = BOARD
    observation_shape: tuple[int, int, int] = (2, HEIGHT, WIDTH)
    max_moves = WIDTH * HEIGHT
    action_names = columns = tuple(str(column + 1) for column in range(WIDTH))
    rows = ("",) * HEIGHT
    symmetries = Symmetries(
        np.stack([CELLS.ravel(), CELLS[:, ::-1].ravel()]),
        np.stack([np.arange(WIDTH), np.arange(WIDTH)[::-1]]),
    )

    def follow(self, state: Array, action: Array, following: Array) -> int:
        return play(state, action, following)

    def action_mask(self, state: Array) -> Array:
        return action_mask(state)

    def observe(self, state: Array) -> Array:
        return observe(state)

    def rollout(self, state: Array, generator: np.random.Generator) -> Array:
        return scores(rollout(state, generator))

    def heuristic(self, state: Array) -> Array:
        """Return how much better the lines of the player who moves look, [N] in (-1, 1)."""
        return heuristic(state)

    def solve(self, state: Array) -> Array:
        """Return the value of each move to the player who moves, [N, 7]: 0 for a draw, k for a win
        after which, and with which, he has k stones left to play in a full board, -k for a loss;
        nan where the column is full, and 0 throughout at a finished board."""
        values = np.zeros((len(state), WIDTH), np.float32)
        live = np.flatnonzero(~state["over"])
        values[live] = solver.solve(*own_and_taken(state[live]))
        return values

    def solves_quickly(self, state: Array) -> Array:
        """Return for which boards `solve` takes an instant, [N] bool; others may take minutes."""
        return state["over"] | solver.quick(*own_and_taken(state), solver.openings()[0])

    def ends(self, board: Array) -> Array:
        """Return the cell that a stone falls to in each column, twice."""
        free = (self.cells(board) == NOBODY).sum(0)
        return ((free - 1) * WIDTH + np.arange(WIDTH))[:, None].repeat(2, 1)

    def marked(self, board: Array, action: int) -> int:
        """Return the cell of the topmost stone in a column."""
        if action < 0:
            return -1
        stones = self.cells(board)[:, action] != NOBODY
        return int(stones.argmax()) * WIDTH + action


def own_and_taken(state: Array) -> tuple[Array, Array]:
    """Return the stones of the player who moves, and all stones, [N] uint64 each."""
    stones, player = state["stones"], state["player"].astype(np.int64)
    own = np.take_along_axis(stones, player[:, None], 1)[:, 0]
    return own, stones[:, 0] | stones[:, 1]


@njit(cache=True)
def won(stones):  # uint64 -> bool
    """Return whether four of these stones are in a line: down, across, or either way aslant."""
    for pitch in (1, PITCH, PITCH - 1, PITCH + 1):
        pairs = stones & (stones >> np.uint64(pitch))
        if pairs & (pairs >> np.uint64(2 * pitch)):
            return True
    return False


@njit(cache=True)
def cell(taken, column):  # uint64, int64 -> uint64
    """Return the lowest free cell of a column: adding to its lowest cell carries up to there. Where
    the column is full, that is the cell that stays empty."""
    return (taken + (ONE << np.uint64(column * PITCH))) & ~taken


@njit(cache=True)
def play(state, action, following):  # [N] BOARD, [N] int64, [N] BOARD -> int64
    """Drop a stone on each board that is not finished; return the first that cannot take it, or
    -1."""
    for i in range(len(state)):
        board, column = state[i], action[i]
        following[i] = board
        if board.over:
            continue
        taken = board.stones[0] | board.stones[1]
        if column < 0 or column >= WIDTH or cell(taken, column) & ABOVE:
            return i
        mover, dropped = board.player, cell(taken, column)
        stones = board.stones[mover] | dropped
        wins = won(stones)
        following[i].stones[mover] = stones
        following[i].player = 1 - mover
        following[i].over = wins or (taken | dropped) == FULL
        following[i].winner = mover if wins else NOBODY
    return -1


@njit(cache=True)
def action_mask(state):  # [N] BOARD -> [N, A] bool
    mask = np.ones((len(state), WIDTH), np.bool_)
    for i in range(len(state)):
        taken = state[i].stones[0] | state[i].stones[1]
        for column in range(WIDTH):
            mask[i, column] = state[i].over or not cell(taken, column) & ABOVE
    return mask


@njit(cache=True)
def observe(state):  # [N] BOARD -> [N, 2, 6, 7] float32
    planes = np.empty((len(state), 2, HEIGHT, WIDTH), np.float32)
    for i in range(len(state)):
        player = state[i].player
        for plane in range(2):
            stones = state[i].stones[player ^ plane]
            for row in range(HEIGHT):
                for column in range(WIDTH):
                    bit = np.uint64(column * PITCH + HEIGHT - 1 - row)
                    planes[i, plane, row, column] = stones >> bit & ONE
    return planes


@njit(cache=True)
def heuristic(state):  # [N] BOARD -> [N] float32
    """Every line of four that the other player has no stone in counts the stones in it, and eight
    more for three."""
    looks = np.empty(len(state), np.float32)
    for i in range(len(state)):
        player, lead = state[i].player, 0
        for side in (0, 1):
            own, other = state[i].stones[player ^ side], state[i].stones[player ^ 1 - side]
            possible, counted = FULL & ~other, 0
            for pitch in (1, PITCH, PITCH - 1, PITCH + 1):
                one, two, three = np.uint64(pitch), np.uint64(2 * pitch), np.uint64(3 * pitch)
                lines = possible & possible >> one & possible >> two & possible >> three
                a, b, c, d = (
                    own & lines,
                    own >> one & lines,
                    own >> two & lines,
                    own >> three & lines,
                )
                counted += count(a) + count(b) + count(c) + count(d)
                counted += 8 * count(a & b & (c | d) | c & d & (a | b))
            lead += counted if side == 0 else -counted
        looks[i] = lead / (32 + abs(lead))
    return looks


@njit(cache=True)
def count(stones):  # uint64 -> int64
    number = 0
    while stones:
        stones &= stones - ONE
        number += 1
    return number


@njit(cache=True)
def rollout(state, generator):  # [N] BOARD -> [N] int8
    """Play at random to the end; return who won."""
    winner = np.empty(len(state), np.int8)
    for i in range(len(state)):
        player, over, winner[i] = state[i].player, state[i].over, state[i].winner
        own, other = state[i].stones[player], state[i].stones[1 - player]
        while not over:
            dropped = ABOVE
            while dropped & ABOVE:  # a full column
                dropped = cell(own | other, int(generator.random() * WIDTH))
            own, other = other, own | dropped
            player = 1 - player
            if won(other):
                winner[i] = 1 - player
                break
            over = (own | other) == FULL
    return winner
