"""Othello (Reversi) on 8 x 8, 6 x 6 or 4 x 4 cells: turn what you close in, end with more stones.

Actions are the cells, row by row from the top, and then the pass, which is legal only for a player
who cannot put a stone while the other one can; where neither can, the game is over. A player's
stones are bits of a word, eight to a row on every board: cell (r, c) is bit 8 r + c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numba import njit

from envs._exhaustive import Exhaustive
from rlplay.core import Array, Range
from rlplay.game import NOBODY, BoardGame, GameEnv, cell_names, scores, square_symmetries

BOARD = np.dtype(
    [
        ("stones", np.uint64, 2),
        ("moves", np.uint64),  # cells for the player who moves, found once, by whoever moved before
        ("player", np.int8),
        ("over", np.bool_),
        ("winner", np.int8),
    ]
)
ONE, EIGHT = np.uint64(1), np.uint64(8)
ROW, DOWNWARDS, UPWARDS = ONE, np.uint64(9), np.uint64(7)  # from cell to cell of a line, bits
COLUMN = np.uint64(0x0101010101010101)


@dataclass(frozen=True)
class Config:
    name: Literal["othello"] = "othello"
    num_envs: Annotated[int, Range(1)] = 1
    """Boards side by side."""
    random_opening: Annotated[int, Range(0, 50)] = 0
    """Up to so many moves are played at random before the players take over."""
    size: Literal[4, 6, 8] = 8
    """Rows and columns of the board."""

    @property
    def world(self) -> str:
        return f"othello-{self.size}x{self.size}"

    def rules(self) -> Othello:
        return Othello(self.size)

    def make(self, *, render: bool = False) -> GameEnv:
        return GameEnv(
            self.rules(), self.num_envs, random_opening=self.random_opening, render=render
        )

    def for_evaluation(self) -> Config:
        """Return itself: games are scored as they are trained on."""
        return self


class Othello(BoardGame):
    """The rules. Observations are [2, size, size]."""

    dtype = BOARD
    observation_shape: tuple[int, int, int]

    def __init__(self, size: int = 8) -> None:
        self.size = size
        self.name = f"othello-{size}x{size}"
        self.num_actions = size * size + 1
        self.observation_shape = (2, size, size)
        self.max_moves = 2 * (size * size - 4)  # a pass is always followed by a stone
        self.action_names = (*cell_names(size, size), "pass")
        self.symmetries = square_symmetries(size, num_others=1)
        if size == 4:
            # The value of each move is the lead in stones at the end.
            self.solve = Exhaustive(self, lead).solve

    def start(self, n: int) -> Array:
        state = super().start(n)
        corner = np.uint64(9 * (self.size // 2 - 1))  # the upper left one of the middle four cells
        first, second = np.uint64(0b10) | ONE << EIGHT, ONE | np.uint64(0b10) << EIGHT
        state["stones"] = first << corner, second << corner
        state["moves"] = placements(first << corner, second << corner, self.size)
        return state

    def follow(self, state: Array, action: Array, following: Array) -> int:
        return play(state, action, following, self.size)

    def action_mask(self, state: Array) -> Array:
        return action_mask(state, self.size)

    def observe(self, state: Array) -> Array:
        return observe(state, self.size)

    def heuristic(self, state: Array) -> Array:
        """Return how much better the player who moves stands, [N] in (-1, 1)."""
        return heuristic(state, self.size)

    def rollout(self, state: Array, generator: np.random.Generator) -> Array:
        return scores(rollout(state, generator, self.size))


@njit(cache=True)
def ahead(stones, lane, shift):  # uint64 each -> uint64
    """Return the cells of `lane` in unbroken lines from the stones on, towards higher bits: two
    steps singly, then twice two at once, six being the longest."""
    line = stones << shift & lane
    line |= line << shift & lane
    two = lane & lane << shift
    line |= line << shift + shift & two
    return line | line << shift + shift & two


@njit(cache=True)
def behind(stones, lane, shift):  # uint64 each -> uint64
    """Return the same towards lower bits."""
    line = stones >> shift & lane
    line |= line >> shift & lane
    two = lane & lane >> shift
    line |= line >> shift + shift & two
    return line | line >> shift + shift & two


@njit(cache=True)
def lanes(other, size):  # uint64, int64 -> tuple of (shift, uint64)
    """Return the steps from cell to cell of a line, and the other player's stones that can be
    closed in that way: none at the left and right edge, unless up and down. So no line leaves the
    board at one side and comes back at the other."""
    inner = other & COLUMN * ((ONE << np.uint64(size - 1)) - np.uint64(2))
    return (ROW, inner), (UPWARDS, inner), (EIGHT, other), (DOWNWARDS, inner)


@njit(cache=True)
def placements(own, other, size):  # uint64, uint64, int64 -> uint64
    """Return the cells on which a stone would turn others."""
    ends = np.uint64(0)
    for shift, lane in lanes(other, size):
        ends |= ahead(own, lane, shift) << shift | behind(own, lane, shift) >> shift
    board = COLUMN * ((ONE << np.uint64(size)) - ONE)
    if size < 8:
        board &= (ONE << np.uint64(8 * size)) - ONE
    return ends & board & ~(own | other)


@njit(cache=True)
def turned(stone, own, other, size):  # uint64, uint64, uint64, int64 -> uint64
    """Return the other player's stones that a new stone turns."""
    found = np.uint64(0)
    for shift, lane in lanes(other, size):
        line = ahead(stone, lane, shift)
        if line << shift & own:
            found |= line
        line = behind(stone, lane, shift)
        if line >> shift & own:
            found |= line
    return found


@njit(cache=True)
def count(stones):  # uint64 -> int64
    number = 0
    while stones:
        stones &= stones - ONE
        number += 1
    return number


@njit(cache=True)
def play(state, action, following, size):  # [N] BOARD, [N] int64, [N] BOARD, int64 -> int64
    """Make a move on each board that is not finished; return the first where it is illegal, or
    -1."""
    for i in range(len(state)):
        board, cell = state[i], action[i]
        following[i] = board
        if board.over:
            continue
        mover, moves = board.player, board.moves
        own, other = board.stones[mover], board.stones[1 - mover]
        if moves:
            if cell < 0 or cell >= size * size:
                return i
            stone = ONE << np.uint64(cell // size * 8 + cell % size)
            if not moves & stone:
                return i
            flips = turned(stone, own, other, size)
            own, other = own | stone | flips, other & ~flips
        elif cell != size * size:
            return i
        moves = placements(other, own, size)
        following[i].stones[mover] = own
        following[i].stones[1 - mover] = other
        following[i].moves = moves
        following[i].player = 1 - mover
        if not moves and not placements(own, other, size):
            lead = count(own) - count(other)
            following[i].over = True
            following[i].winner = NOBODY if lead == 0 else mover if lead > 0 else 1 - mover
    return -1


@njit(cache=True)
def action_mask(state, size):  # [N] BOARD, int64 -> [N, A] bool
    num_cells = size * size
    mask = np.empty((len(state), num_cells + 1), np.bool_)
    for i in range(len(state)):
        moves = ~np.uint64(0) if state[i].over else state[i].moves
        for row in range(size):
            for column in range(size):
                mask[i, row * size + column] = moves >> np.uint64(8 * row + column) & ONE
        mask[i, num_cells] = state[i].moves == 0
    return mask


@njit(cache=True)
def observe(state, size):  # [N] BOARD, int64 -> [N, 2, size, size] float32
    planes = np.empty((len(state), 2, size, size), np.float32)
    for i in range(len(state)):
        for plane in range(2):
            stones = state[i].stones[state[i].player ^ plane]
            for row in range(size):
                for column in range(size):
                    planes[i, plane, row, column] = stones >> np.uint64(8 * row + column) & ONE
    return planes


@njit(cache=True)
def heuristic(state, size):  # [N] BOARD, int64 -> [N] float32
    """Compare mobility, corners and stones (Rosenbloom 1982 names them): a corner counts five
    moves, and a stone a tenth of a move."""
    edge = np.uint64(size - 1)
    corners = (ONE | ONE << edge) | (ONE | ONE << edge) << edge * EIGHT
    looks = np.empty(len(state), np.float32)
    for i in range(len(state)):
        player = state[i].player
        own, other = state[i].stones[player], state[i].stones[1 - player]
        better = 5 * (count(own & corners) - count(other & corners)) + count(state[i].moves)
        better -= count(placements(other, own, size))
        better += 0.1 * (count(own) - count(other))
        looks[i] = better / (10 + abs(better))
    return looks


def lead(state: Array) -> Array:
    """Return how many more stones player 0 has, [N]."""
    first, second = np.bitwise_count(state["stones"]).astype(np.float32).T
    return first - second


@njit(cache=True)
def rollout(state, generator, size):  # [N] BOARD, int64 -> [N] int8
    """Play at random to the end; return who won."""
    winner = np.empty(len(state), np.int8)
    for i in range(len(state)):
        board = state[i]
        winner[i] = board.winner
        if board.over:
            continue
        player, moves = board.player, board.moves
        own, other = board.stones[player], board.stones[1 - player]
        passed = False
        while moves or not passed:
            passed = moves == 0
            if moves:
                for _ in range(int(generator.random() * count(moves))):
                    moves &= moves - ONE
                stone = moves & ~(moves - ONE)
                flips = turned(stone, own, other, size)
                own, other = own | stone | flips, other & ~flips
            own, other, player = other, own, 1 - player
            moves = placements(own, other, size)
        lead = count(own) - count(other)
        winner[i] = NOBODY if lead == 0 else player if lead > 0 else 1 - player
    return winner
