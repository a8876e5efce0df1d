"""Breakthrough (Dan Troyka 2000): bring one stone to the other side of the board, or take them all.

Stones go one cell forward, straight ahead only to a free cell, aslant also onto a stone of the
other player, which is taken. Player 0 begins, at the bottom. Each has two rows of stones, on boards
smaller than 6 x 6 one. There are no draws, and whoever moves can: the diagonals before her foremost
stone hold none of hers.

Action 3 * cell + direction moves the stone on a cell, row by row from the top, to the left, ahead
or to the right as the board is seen by player 0; cell (r, c) is bit size * r + c of a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase
from typing import Annotated, Literal

import numpy as np
from numba import njit

from rlplay.core import Array, Range, Symmetries
from rlplay.game import NOBODY, BoardGame, GameEnv, scores

BOARD = np.dtype(
    [("stones", np.uint64, 2), ("player", np.int8), ("over", np.bool_), ("winner", np.int8)]
)
DIRECTIONS = ("left", "ahead", "right")
ZERO, ONE = np.uint64(0), np.uint64(1)


@dataclass(frozen=True)
class Config:
    name: Literal["breakthrough"] = "breakthrough"
    num_envs: Annotated[int, Range(1)] = 1
    """Boards side by side."""
    random_opening: Annotated[int, Range(0, 30)] = 0
    """Up to so many moves are played at random before the players take over."""
    size: Annotated[int, Range(4, 8)] = 8
    """Rows and columns of the board."""

    @property
    def world(self) -> str:
        return f"breakthrough-{self.size}x{self.size}"

    def rules(self) -> Breakthrough:
        return Breakthrough(self.size)

    def make(self, *, render: bool = False) -> GameEnv:
        return GameEnv(
            self.rules(), self.num_envs, random_opening=self.random_opening, render=render
        )

    def for_evaluation(self) -> Config:
        """Return itself: games are scored as they are trained on."""
        return self


class Breakthrough(BoardGame):
    """The rules. Observations are [3, size, size]; the last plane is 1 where player 1 moves, so
    that forward is down."""

    dtype = BOARD
    observation_shape: tuple[int, int, int]

    def __init__(self, size: int = 8) -> None:
        self.size = size
        self.num_rows = 2 if size >= 6 else 1  # of stones, on either side
        self.name = f"breakthrough-{size}x{size}"
        self.num_actions = 3 * size * size
        self.observation_shape = (3, size, size)
        steps = sum(size - 2 - row for row in range(self.num_rows))  # short of the other side
        self.max_moves = 2 * size * steps + 1
        self.columns = ascii_lowercase[:size]
        self.rows = tuple(str(size - row) for row in range(size))
        cells = [column + row for row in self.rows for column in self.columns]
        self.action_names = tuple(f"{cell}-{way}" for cell in cells for way in DIRECTIONS)
        board = np.arange(size * size).reshape(size, size)
        boards = np.stack([board.ravel(), board[:, ::-1].ravel()])
        ways = np.array([[0, 1, 2], [2, 1, 0]])
        actions = 3 * boards[:, :, None] + ways[:, None, :]
        self.symmetries = Symmetries(boards, actions.reshape(2, -1))

    def start(self, n: int) -> Array:
        state = super().start(n)
        stones = (1 << self.size * self.num_rows) - 1  # of player 1, at the top
        state["stones"] = stones << self.size * (self.size - self.num_rows), stones
        return state

    def follow(self, state: Array, action: Array, following: Array) -> int:
        return play(state, action, following, self.size)

    def action_mask(self, state: Array) -> Array:
        return action_mask(state, self.size)

    def observe(self, state: Array) -> Array:
        return observe(state, self.size)

    def rollout(self, state: Array, generator: np.random.Generator) -> Array:
        return scores(rollout(state, generator, self.size))

    def ends(self, board: Array) -> Array:
        """Return the cells that each action moves a stone from and to."""
        cell, way = np.divmod(np.arange(self.num_actions), len(DIRECTIONS))
        ahead = cell + (self.size if board["player"] else -self.size)
        return np.stack([cell, ahead + way - 1], 1)

    def marked(self, board: Array, action: int) -> int:
        """Return the cell that a stone has moved to."""
        if action < 0:
            return -1
        down = 1 if board["player"] == 0 else -1  # it was the other one who moved
        return action // 3 + down * self.size + action % 3 - 1


@njit(cache=True)
def edges(size):  # int64 -> uint64 twice
    """Return the leftmost and the rightmost column."""
    left = ZERO
    for row in range(size):
        left |= ONE << np.uint64(row * size)
    return left, left << np.uint64(size - 1)


@njit(cache=True)
def movable(own, other, player, size):  # uint64 twice, int64 twice -> uint64 three times
    """Return the stones that can move to the left, ahead and to the right: those whose goal, moved
    back to where they stand, is on the board and not one of their own (ahead, not taken)."""
    leftmost, rightmost = edges(size)
    less, row, more = np.uint64(size - 1), np.uint64(size), np.uint64(size + 1)
    if player == 0:
        left, ahead, right = own << more, (own | other) << row, own << less
    else:
        left, ahead, right = own >> less, (own | other) >> row, own >> more
    return own & ~leftmost & ~left, own & ~ahead, own & ~rightmost & ~right


@njit(cache=True)
def goal(cell, way, player, size):  # int64 each -> int64
    """Return the cell that lies to the left, ahead or to the right of another."""
    return cell + (size if player else -size) + way - 1


@njit(cache=True)
def wins(cell, other, player, size):  # int64, uint64, int64 twice -> bool
    """Return whether having come to a cell, with these stones left to the other player, wins."""
    return cell // size == (size - 1 if player else 0) or other == ZERO


@njit(cache=True)
def play(state, action, following, size):  # [N] BOARD, [N] int64, [N] BOARD, int64 -> int64
    """Make a move on each board that is not finished; return the first where it is illegal, or
    -1."""
    for i in range(len(state)):
        board = state[i]
        following[i] = board
        if board.over:
            continue
        cell, way, mover = action[i] // 3, action[i] % 3, board.player
        if cell < 0 or cell >= size * size:
            return i
        own, other = board.stones[mover], board.stones[1 - mover]
        stone = ONE << np.uint64(cell)
        if not movable(own, other, mover, size)[way] & stone:
            return i
        end = goal(cell, way, mover, size)
        moved = ONE << np.uint64(end)
        following[i].stones[mover] = own ^ stone | moved
        following[i].stones[1 - mover] = other & ~moved
        following[i].player = 1 - mover
        following[i].over = wins(end, other & ~moved, mover, size)
        following[i].winner = mover if following[i].over else NOBODY
    return -1


@njit(cache=True)
def action_mask(state, size):  # [N] BOARD, int64 -> [N, A] bool
    mask = np.empty((len(state), 3 * size * size), np.bool_)
    for i in range(len(state)):
        player, over = state[i].player, state[i].over
        own, other = state[i].stones[player], state[i].stones[1 - player]
        left, ahead, right = movable(own, other, player, size)
        for cell in range(size * size):
            bit = np.uint64(cell)
            mask[i, 3 * cell] = over or left >> bit & ONE
            mask[i, 3 * cell + 1] = over or ahead >> bit & ONE
            mask[i, 3 * cell + 2] = over or right >> bit & ONE
    return mask


@njit(cache=True)
def observe(state, size):  # [N] BOARD, int64 -> [N, 3, size, size] float32
    planes = np.empty((len(state), 3, size, size), np.float32)
    for i in range(len(state)):
        for plane in range(2):
            stones = state[i].stones[state[i].player ^ plane]
            for row in range(size):
                for column in range(size):
                    bit = np.uint64(row * size + column)
                    planes[i, plane, row, column] = stones >> bit & ONE
        planes[i, 2] = state[i].player
    return planes


@njit(cache=True)
def count(stones):  # uint64 -> int64
    """Return how many there are, adding up bits in pairs, fours and eights, and the eights."""
    stones -= stones >> ONE & np.uint64(0x5555555555555555)
    pairs = np.uint64(0x3333333333333333)
    stones = (stones & pairs) + (stones >> np.uint64(2) & pairs)
    stones = stones + (stones >> np.uint64(4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64(stones * np.uint64(0x0101010101010101) >> np.uint64(56))


@njit(cache=True)
def rollout(state, generator, size):  # [N] BOARD, int64 -> [N] int8
    """Play at random to the end; return who won."""
    winner = np.empty(len(state), np.int8)
    for i in range(len(state)):
        winner[i] = state[i].winner
        if state[i].over:
            continue
        player = state[i].player
        own, other = state[i].stones[player], state[i].stones[1 - player]
        while True:
            stones, ahead, right = movable(own, other, player, size)
            num_left, num_ahead = count(stones), count(ahead)
            way = 0
            chosen = int(generator.random() * (num_left + num_ahead + count(right)))
            if chosen >= num_left + num_ahead:
                stones, way, chosen = right, 2, chosen - num_left - num_ahead
            elif chosen >= num_left:
                stones, way, chosen = ahead, 1, chosen - num_left
            for _ in range(chosen):
                stones &= stones - ONE
            stone = stones & ~(stones - ONE)
            end = goal(count(stone - ONE), way, player, size)
            moved = ONE << np.uint64(end)
            own, other = own ^ stone | moved, other & ~moved
            if wins(end, other, player, size):
                winner[i] = player
                break
            own, other, player = other, own, 1 - player
    return winner
