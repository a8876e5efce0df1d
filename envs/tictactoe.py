"""Tic-tac-toe: three in a line on a board of 3 x 3 win, a full board is a draw.

An action is a cell, row by row from the top. A player's stones are nine bits of a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numba import njit

from envs._exhaustive import Exhaustive
from rlplay.core import Array, Range
from rlplay.game import NOBODY, BoardGame, GameEnv, cell_names, scores, square_symmetries

SIZE, CELLS = 3, 9
BOARD = np.dtype(
    [("stones", np.int16, 2), ("player", np.int8), ("over", np.bool_), ("winner", np.int8)]
)
LINES = (0o007, 0o070, 0o700, 0o111, 0o222, 0o444, 0o421, 0o124)  # three bits each
FULL = 0o777
WON = np.array([any(s & line == line for line in LINES) for s in range(FULL + 1)])  # by stones


@dataclass(frozen=True)
class Config:
    name: Literal["tictactoe"] = "tictactoe"
    num_envs: Annotated[int, Range(1)] = 1
    """Boards side by side."""
    random_opening: Annotated[int, Range(0, 6)] = 0
    """Up to so many moves are played at random before the players take over."""

    @property
    def world(self) -> str:
        return "tictactoe"

    def rules(self) -> TicTacToe:
        return TicTacToe()

    def make(self, *, render: bool = False) -> GameEnv:
        return GameEnv(
            self.rules(), self.num_envs, random_opening=self.random_opening, render=render
        )

    def for_evaluation(self) -> Config:
        """Return itself: games are scored as they are trained on."""
        return self


class TicTacToe(BoardGame):
    """The rules. Observations are [2, 3, 3]."""

    name = "tictactoe"
    num_actions = CELLS
    dtype = BOARD
    observation_shape: tuple[int, int, int] = (2, SIZE, SIZE)
    max_moves = CELLS
    action_names = cell_names(SIZE, SIZE)
    symmetries = square_symmetries(SIZE)

    def __init__(self) -> None:
        self.solved = Exhaustive(self, worth)

    def solve(self, state: Array) -> Array:
        """Return the value of each move to the player who moves, [N, 9]: 0 for a draw, k for a win
        after which, and with which, he has k stones left to play in a full board, -k for a loss;
        nan where the cell is taken, and 0 throughout at a finished board."""
        return self.solved.solve(state)

    def follow(self, state: Array, action: Array, following: Array) -> int:
        return play(state, action, following)

    def action_mask(self, state: Array) -> Array:
        return action_mask(state)

    def observe(self, state: Array) -> Array:
        return observe(state)

    def rollout(self, state: Array, generator: np.random.Generator) -> Array:
        return scores(rollout(state, generator))


def worth(state: Array) -> Array:
    """Return what finished boards are worth to player 0, [N], counted as in `solve`."""
    taken = state["stones"][:, 0] | state["stones"][:, 1]
    num_stones = np.bitwise_count(taken).astype(np.float32)
    return scores(state["winner"])[:, 0] * ((CELLS + 2 - num_stones) // 2)


@njit(cache=True)
def play(state, action, following):  # [N] BOARD, [N] int64, [N] BOARD -> int64
    """Put a stone on each board that is not finished; return the first where the cell is not free,
    or -1."""
    for i in range(len(state)):
        board, cell = state[i], action[i]
        following[i] = board
        if board.over:
            continue
        taken = board.stones[0] | board.stones[1]
        if cell < 0 or cell >= CELLS or taken >> cell & 1:
            return i
        mover = board.player
        stones = board.stones[mover] | 1 << cell
        wins = WON[stones]
        following[i].stones[mover] = stones
        following[i].player = 1 - mover
        following[i].over = wins or taken | 1 << cell == FULL
        following[i].winner = mover if wins else NOBODY
    return -1


@njit(cache=True)
def action_mask(state):  # [N] BOARD -> [N, A] bool
    mask = np.empty((len(state), CELLS), np.bool_)
    for i in range(len(state)):
        taken = state[i].stones[0] | state[i].stones[1]
        for cell in range(CELLS):
            mask[i, cell] = state[i].over or not taken >> cell & 1
    return mask


@njit(cache=True)
def observe(state):  # [N] BOARD -> [N, 2, 3, 3] float32
    planes = np.empty((len(state), 2, SIZE, SIZE), np.float32)
    for i in range(len(state)):
        for plane in range(2):
            stones = state[i].stones[state[i].player ^ plane]
            for cell in range(CELLS):
                planes[i, plane, cell // SIZE, cell % SIZE] = stones >> cell & 1
    return planes


@njit(cache=True)
def rollout(state, generator):  # [N] BOARD -> [N] int8
    """Play at random to the end; return who won."""
    winner = np.empty(len(state), np.int8)
    for i in range(len(state)):
        player, over, winner[i] = state[i].player, state[i].over, state[i].winner
        own, other = int(state[i].stones[player]), int(state[i].stones[1 - player])
        while not over:
            cell = int(generator.random() * CELLS)
            if (own | other) >> cell & 1:
                continue
            own, other = other, own | 1 << cell
            player = 1 - player
            if WON[other]:
                winner[i] = 1 - player
                break
            over = own | other == FULL
    return winner
