"""Gomoku: five in a line on a board of up to 19 x 19 cells win, and so do more; a full board draws.

These are the freestyle rules, without a ban on any move. Sizes and lengths of the line are free,
so that 3 and 3 is tic-tac-toe. An action is a cell, row by row from the top. A player's stones are
one word a row, column c at bit c, and words of the same number on every size of board.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numba import njit

from rlplay.core import Array, Mistake, Range
from rlplay.game import NOBODY, BoardGame, GameEnv, cell_names, scores, square_symmetries

LARGEST = 19
BOARD = np.dtype(
    [
        ("stones", np.int32, (2, LARGEST)),  # rows of either player
        ("num_stones", np.int16),
        ("player", np.int8),
        ("over", np.bool_),
        ("winner", np.int8),
    ]
)
WAYS = ((0, 1), (1, 0), (1, 1), (1, -1))  # down and right of the four ways that a line can go


@dataclass(frozen=True)
class Config:
    name: Literal["gomoku"] = "gomoku"
    num_envs: Annotated[int, Range(1)] = 1
    """Boards side by side."""
    random_opening: Annotated[int, Range(0, 60)] = 0
    """Up to so many moves are played at random before the players take over."""
    size: Annotated[int, Range(3, LARGEST)] = 9
    """Rows and columns of the board; 15 in tournaments."""
    line: Annotated[int, Range(3, LARGEST)] = 5
    """Stones in a line that win."""

    @property
    def world(self) -> str:
        return name(self.size, self.line)

    def rules(self) -> Gomoku:
        """Return the game. Raises Mistake where its line is longer than its board."""
        return Gomoku(self.size, self.line)

    def make(self, *, render: bool = False) -> GameEnv:
        return GameEnv(
            self.rules(), self.num_envs, random_opening=self.random_opening, render=render
        )

    def for_evaluation(self) -> Config:
        """Return itself: games are scored as they are trained on."""
        return self


def name(size: int, line: int) -> str:
    """Return what a game is called: gomoku-9x9, and gomoku-3x3-line-3 where it is not five."""
    return f"gomoku-{size}x{size}" + (f"-line-{line}" if line != 5 else "")


class Gomoku(BoardGame):
    """The rules. Observations are [2, size, size]."""

    dtype = BOARD
    observation_shape: tuple[int, int, int]

    def __init__(self, size: int = 9, line: int = 5) -> None:
        if line > size:
            raise Mistake(f"no {line} stones in a line fit on {size} x {size}: set env.line={size}")
        self.size, self.line = size, line
        self.name = name(size, line)
        self.num_actions = self.max_moves = size * size
        self.observation_shape = (2, size, size)
        self.action_names = cell_names(size, size)
        self.symmetries = square_symmetries(size)

    def follow(self, state: Array, action: Array, following: Array) -> int:
        return play(state, action, following, self.size, self.line)

    def action_mask(self, state: Array) -> Array:
        return action_mask(state, self.size)

    def observe(self, state: Array) -> Array:
        return observe(state, self.size)

    def heuristic(self, state: Array) -> Array:
        """Return how much better the lines of the player who moves look, [N] in (-1, 1)."""
        return heuristic(state, self.size, self.line)

    def rollout(self, state: Array, generator: np.random.Generator) -> Array:
        return scores(rollout(state, generator, self.size, self.line))


@njit(cache=True)
def won(rows, row, column, size, line):  # [19] int32, int64 each -> bool
    """Return whether so many of a player's stones, or more, lie in a line through one of them."""
    for down, right in WAYS:
        length = 1
        for sense in (1, -1):
            r, c = row + sense * down, column + sense * right
            while 0 <= r < size and 0 <= c < size and rows[r] >> c & 1:
                length += 1
                r, c = r + sense * down, c + sense * right
        if length >= line:
            return True
    return False


@njit(cache=True)
def play(state, action, following, size, line):  # [N] BOARD, [N] int64, [N] BOARD, int64 twice
    """Put a stone on each board that is not finished; return the first where the cell is not free,
    or -1."""
    for i in range(len(state)):
        following[i] = state[i]
        if state[i].over:
            continue
        row, column = action[i] // size, action[i] % size
        if row < 0 or row >= size:
            return i
        stones, mover = following[i].stones, state[i].player
        if (stones[0, row] | stones[1, row]) >> column & 1:
            return i
        stones[mover, row] |= 1 << column
        wins = won(stones[mover], row, column, size, line)
        following[i].num_stones = state[i].num_stones + 1
        following[i].player = 1 - mover
        following[i].over = wins or following[i].num_stones == size * size
        following[i].winner = mover if wins else NOBODY
    return -1


@njit(cache=True)
def action_mask(state, size):  # [N] BOARD, int64 -> [N, A] bool
    mask = np.empty((len(state), size * size), np.bool_)
    for i in range(len(state)):
        stones = state[i].stones
        for row in range(size):
            taken = 0 if state[i].over else stones[0, row] | stones[1, row]
            for column in range(size):
                mask[i, row * size + column] = not taken >> column & 1
    return mask


@njit(cache=True)
def observe(state, size):  # [N] BOARD, int64 -> [N, 2, size, size] float32
    planes = np.empty((len(state), 2, size, size), np.float32)
    for i in range(len(state)):
        for plane in range(2):
            stones = state[i].stones[state[i].player ^ plane]
            for row in range(size):
                for column in range(size):
                    planes[i, plane, row, column] = stones[row] >> column & 1
    return planes


@njit(cache=True)
def heuristic(state, size, line):  # [N] BOARD, int64 twice -> [N] float32
    """Every line that the other player has no stone in counts 1, 5, 21, 85 for one to four stones
    in it. Those that begin in one row are the bits of a word, and counted together."""
    looks = np.empty(len(state), np.float32)
    whole = (1 << size) - 1
    for i in range(len(state)):
        better = 0
        for side in (0, 1):
            own, other = state[i].stones[side], state[i].stones[1 - side]
            counted = 0
            for down, right in WAYS:
                for row in range(size - down * (line - 1)):
                    open_lines, one, two, three, four = whole, 0, 0, 0, 0  # so many stones or more
                    for k in range(line):
                        r, column = row + k * down, k * right
                        stones, possible = own[r], whole & ~other[r]
                        if column < 0:
                            stones, possible = stones << -column, possible << -column
                        else:
                            stones, possible = stones >> column, possible >> column
                        open_lines &= possible
                        four |= three & stones
                        three |= two & stones
                        two |= one & stones
                        one |= stones
                    counted += count(open_lines & one) + 4 * count(open_lines & two)
                    counted += 16 * count(open_lines & three) + 64 * count(open_lines & four)
            better += counted if side == state[i].player else -counted
        looks[i] = better / (100 + abs(better))
    return looks


@njit(cache=True)
def count(bits):  # int64 -> int64
    number = 0
    while bits:
        bits &= bits - 1
        number += 1
    return number


@njit(cache=True)
def rollout(state, generator, size, line):  # [N] BOARD, int64 twice -> [N] int8
    """Play at random to the end; return who won."""
    winner = np.empty(len(state), np.int8)
    stones = np.empty((2, LARGEST), np.int32)
    free = np.empty(size * size, np.int64)
    for i in range(len(state)):
        winner[i] = state[i].winner
        if state[i].over:
            continue
        stones[:] = state[i].stones
        player, num_free = state[i].player, 0
        for cell in range(size * size):
            if not (stones[0, cell // size] | stones[1, cell // size]) >> cell % size & 1:
                free[num_free] = cell
                num_free += 1
        while num_free:
            chosen = int(generator.random() * num_free)
            num_free -= 1
            row, column = free[chosen] // size, free[chosen] % size
            free[chosen] = free[num_free]
            stones[player, row] |= 1 << column
            if won(stones[player], row, column, size, line):
                winner[i] = player
                break
            player = 1 - player
    return winner
