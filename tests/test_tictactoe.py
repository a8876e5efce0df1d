"""Tic-tac-toe: all of it is counted and solved."""

from __future__ import annotations

import numpy as np
from rules import keys, play_beside_open_spiel, plies, solve

from envs.tictactoe import Config

GAME = Config().rules()
PATHS = [1, 9, 72, 504, 3024, 15120, 54720, 148176, 200448, 127872]
FIRST_WINS = [0, 0, 0, 0, 0, 1440, 0, 47952, 0, 81792]
SECOND_WINS = [0, 0, 0, 0, 0, 0, 5328, 0, 72576, 0]


def test_all_games_are_those_that_are_known():
    first, second, draws, num_positions = [], [], [], 0
    for number, ply in enumerate(plies(GAME)):
        assert ply.paths.sum() == PATHS[number]
        over, score = GAME.over(ply.boards), GAME.score(ply.boards)[:, 0]
        first.append(ply.paths[score > 0].sum())
        second.append(ply.paths[score < 0].sum())
        draws.append(ply.paths[over & (score == 0)].sum())
        num_positions += len(ply.boards)
    assert (first, second) == (FIRST_WINS, SECOND_WINS)
    assert draws == [0] * 9 + [46080]
    assert (sum(first), sum(second), sum(draws)) == (131184, 77904, 46080)
    assert num_positions == 5478


def test_there_are_765_positions_up_to_symmetry():
    boards = np.concatenate([ply.boards for ply in plies(GAME)])
    smallest = np.full(len(boards), np.iinfo(np.int64).max)
    for cells in GAME.symmetries.board_symmetries:
        stones = np.zeros((len(boards), 2), np.int64)
        for to, source in enumerate(cells):
            stones |= (boards["stones"].astype(np.int64) >> source & 1) << to
        smallest = np.minimum(smallest, stones[:, 0] << 9 | stones[:, 1])
    assert len(np.unique(smallest)) == 765
    assert len(np.unique(keys(boards))) == 5478


def test_perfect_play_is_a_draw():
    assert solve(GAME, lambda boards: GAME.score(boards)[:, 0].astype(int)) == 0


def test_win_on_the_last_empty_cell_is_no_draw():
    board = GAME.start(1)
    for cell in (0, 1, 2, 3, 4, 6, 5, 7):  # X O X / O X X / O O .
        board = GAME.play(board, np.array([cell]))
    assert not GAME.over(board)[0]
    assert GAME.action_mask(board)[0].tolist() == [False] * 8 + [True]
    board = GAME.play(board, np.array([8]))
    assert GAME.over(board)[0]
    assert GAME.score(board)[0].tolist() == [1, -1]


def test_random_games_are_open_spiels():
    play_beside_open_spiel(GAME, "tic_tac_toe", {}, 200)
