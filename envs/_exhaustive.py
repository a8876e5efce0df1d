"""The exact value of every position of a game so small that all can be listed, from the ends of
games backwards (Zermelo 1913). Knows no game.

A value is for the player who moves, what it counts is up to the game, and more is better.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rlplay.core import Array, Game


class Exhaustive:
    """Lists positions when they are first asked for: those of the whole game, and any other that
    could not have come up in it."""

    def __init__(self, game: Game, worth: Callable[[Array], Array]) -> None:
        """`worth` returns what finished boards [N] are worth to player 0, [N]."""
        self.game, self.worth = game, worth
        self.known = np.empty(0, as_words(game.start(0)).dtype)  # [K] boards, rising
        self.value = np.empty(0, np.float32)  # [K], for player 0

    def solve(self, state: Array) -> Array:
        """Return the value of each move for the player who moves, [N, A]; nan where it is illegal,
        and 0 throughout at a finished board."""
        over = self.game.over(state)
        values = np.where(over[:, None] | self.game.action_mask(state), np.float32(0), np.nan)
        live = state[~over]
        board, action, following = self.follow(live)
        words = as_words(following)
        if not np.isin(words, self.known).all():
            self.list(np.concatenate([self.game.start(1), live]))
        found = self.value[np.searchsorted(self.known, words)]
        values[np.flatnonzero(~over)[board], action] = self.side(live)[board] * found
        return values.astype(np.float32)

    def list(self, state: Array) -> None:
        """Learn the values of these boards and of all that can follow, ply by ply."""
        plies = [np.unique(as_words(state))]
        while len(plies[-1]):
            boards = plies[-1].view(self.game.dtype)
            _, _, following = self.follow(boards[~self.game.over(boards)])
            plies.append(np.unique(as_words(following)))
        values = [np.empty(0, np.float32)]
        for ply in range(len(plies) - 2, -1, -1):
            boards = plies[ply].view(self.game.dtype)
            over = self.game.over(boards)
            value = np.empty(len(boards), np.float32)
            value[over] = self.worth(boards[over])
            board, _, following = self.follow(boards[~over])
            if len(board):
                side = self.side(boards[~over])
                places = np.searchsorted(plies[ply + 1], as_words(following))
                firsts = np.flatnonzero(np.diff(board, prepend=-1))
                best = np.maximum.reduceat(side[board] * values[-1][places], firsts)
                value[~over] = side * best
            values.append(value)
        self.known, first = np.unique(np.concatenate(plies), return_index=True)
        self.value = np.concatenate(values[::-1])[first]

    def follow(self, state: Array) -> tuple[Array, Array, Array]:
        """Return every legal move of unfinished boards: [M] the index of its board, rising, [M] the
        action, [M] the board after it."""
        board, action = np.nonzero(self.game.action_mask(state))
        return board, action, self.game.play(state[board], action)

    def side(self, state: Array) -> Array:
        """Return 1 where player 0 moves and -1 where player 1 does, [N]."""
        return np.where(self.game.player(state) == 0, np.float32(1), np.float32(-1))


def as_words(state: Array) -> Array:
    """Return boards [N] as words of bytes, which have an order, [N]; the same memory."""
    return np.ascontiguousarray(state).view(f"V{state.dtype.itemsize}")
