"""What tests of rules share: games are counted, solved, and played beside OpenSpiel.

Boards are expanded ply by ply, equal ones only once, with the number of ways that lead to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest

from rlplay.core import Array, Game

WEIGHTS = np.random.default_rng(0).integers(0, 2**64, 64, np.uint64) | np.uint64(1)


class Ply(NamedTuple):
    """All boards that some number of moves can lead to, M of them."""

    boards: Array  # [M]
    paths: Array  # [M] int64, in how many ways
    parent: Array  # [L] int64, boards of the ply before, one entry for each legal move
    action: Array  # [L] int64
    child: Array  # [L] int64, boards of this ply


def plies(game: Game) -> Iterator[Ply]:
    """Yield all boards, ply by ply from the first, until every game is over."""
    boards, paths = game.start(1), np.ones(1, np.int64)
    nothing = np.zeros(0, np.int64)
    parent = action = child = nothing
    while len(boards):
        yield Ply(boards, paths, parent, action, child)
        parent, action, following = moves(game, boards)
        _, first, child = np.unique(keys(following), return_index=True, return_inverse=True)
        paths = np.bincount(child, paths[parent], len(first)).astype(np.int64)
        boards = following[first]


def moves(game: Game, boards: Array) -> tuple[Array, Array, Array]:
    """Return all legal moves on boards [M] that are not finished: board and action, [L] int64 each,
    and the boards [L] that they lead to."""
    going = np.flatnonzero(~game.over(boards))
    row, action = np.nonzero(game.action_mask(boards[going]))
    return going[row], action, game.play(boards[going[row]], action)


def keys(boards: Array) -> Array:
    """Return a number for each board, [N] uint64, that all but certainly no other board has."""
    width = boards.dtype.itemsize
    words = np.zeros((len(boards), -(-width // 8) * 8), np.uint8)
    words[:, :width] = boards.view(np.uint8).reshape(len(boards), width)
    words = words.view(np.uint64)
    mixed = words * WEIGHTS[: words.shape[1]]
    mixed ^= mixed >> np.uint64(29)
    return (mixed * WEIGHTS[-words.shape[1] :]).sum(1)


def solve(game: Game, worth: Callable[[Array], Array]) -> int:
    """Return what the first player gets if both play perfectly, given what finished boards are
    `worth` to her, [N] int64."""
    levels = list(plies(game))
    value = worth(levels[-1].boards)
    for level, before in zip(levels[:0:-1], levels[-2::-1], strict=True):
        boards = before.boards
        maximizes = game.player(boards) == 0
        sign = np.where(maximizes, 1, -1)
        best = np.full(len(boards), -(10**6))
        np.maximum.at(best, level.parent, sign[level.parent] * value[level.child])
        value = np.where(game.over(boards), worth(boards), sign * best)
    return int(value[0])


def play_beside_open_spiel(
    game: Game,
    name: str,
    settings: Mapping[str, int],
    num_games: int,
    theirs: Callable[[int], int] = lambda action: action,
) -> None:
    """Play random games beside OpenSpiel's game of that name, all at once, and compare who moves,
    what is legal, whether it is over and who has won at every move. `theirs` turns an action of
    ours into one of OpenSpiel."""
    pyspiel: Any = pytest.importorskip("pyspiel")
    peer = pyspiel.load_game(name, dict(settings))
    others = [peer.new_initial_state() for _ in range(num_games)]
    action_of = {theirs(action): action for action in range(game.num_actions)}
    random, boards = np.random.default_rng(0), game.start(num_games)
    num_moves = 0
    while True:
        over, player = game.over(boards), game.player(boards)
        mask, score = game.action_mask(boards), game.score(boards)
        assert over.tolist() == [other.is_terminal() for other in others]
        for i, other in enumerate(others):
            if over[i]:
                assert score[i].tolist() == other.returns(), str(other)
                continue
            assert player[i] == other.current_player(), str(other)
            legal = sorted(action_of[action] for action in other.legal_actions())
            assert np.flatnonzero(mask[i]).tolist() == legal, str(other)
        if over.all():
            break
        action = np.where(mask, random.random(mask.shape), -1).argmax(1)
        for i in np.flatnonzero(~over):
            others[i].apply_action(theirs(int(action[i])))
        boards = game.play(boards, action)
        num_moves += 1
    assert num_moves > 4
