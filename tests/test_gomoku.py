"""Gomoku: freestyle rules on any size, tic-tac-toe as the smallest, and OpenSpiel agrees."""

from __future__ import annotations

import numpy as np
import pytest
from rules import play_beside_open_spiel, plies, solve

from envs.gomoku import Config, Gomoku
from rlplay.core import Mistake

TIC_TAC_TOE = [1, 9, 72, 504, 3024, 15120, 54720, 148176, 200448, 127872]
RESULTS = {1: 131184, -1: 77904, 0: 46080}


def played(game: Gomoku, cells: str) -> np.ndarray:
    """Return the board after moves by name; the game must not end before the last."""
    board = game.start(1)
    for cell in cells.split():
        assert not game.over(board)[0]
        board = game.play(board, np.array([game.action_names.index(cell)]))
    return board


def placed(game: Gomoku, own: list[tuple[int, int]], last: tuple[int, int]) -> np.ndarray:
    """Return the board after the first player adds a stone to her `own` ones, by row and column,
    the other player having none: no game leads there, but a line is a line."""
    board = game.start(1)
    for row, column in own:
        board["stones"][0, 0, row] |= 1 << column
    board["num_stones"] = 2 * len(own)
    return game.play(board, np.array([last[0] * game.size + last[1]]))


def test_three_in_a_line_on_three_by_three_is_tic_tac_toe():
    game, results = Gomoku(3, 3), {1: 0, -1: 0, 0: 0}
    for paths, ply in zip(TIC_TAC_TOE, plies(game), strict=True):
        assert ply.paths.sum() == paths
        for result in results:
            ends = game.over(ply.boards) & (game.score(ply.boards)[:, 0] == result)
            results[result] += ply.paths[ends].sum()
    assert results == RESULTS
    assert solve(game, lambda boards: game.score(boards)[:, 0].astype(int)) == 0


@pytest.mark.parametrize("size", [5, 6, 19])
@pytest.mark.parametrize("way", [(0, 1), (1, 0), (1, 1), (1, -1)])
def test_every_line_wins_whichever_stone_comes_last(size, way):
    game, num_lines = Gomoku(size, 5), 0
    for row, column in np.ndindex(size, size):
        line = [(row + k * way[0], column + k * way[1]) for k in range(5)]
        if not all(0 <= r < size and 0 <= c < size for r, c in line):
            continue
        num_lines += 1
        for last in line if size < 19 else line[2:3]:
            others = [cell for cell in line if cell != last]
            assert game.score(placed(game, others, last))[0].tolist() == [1, -1]
            assert not game.over(placed(game, others[:-1], last))[0]  # four are too few
    across, down = size - 4 * abs(way[1]), size - 4 * way[0]
    assert num_lines == across * down


def test_line_does_not_go_on_from_one_edge_to_the_other():
    game = Gomoku(7, 5)
    edges = [(2, 4), (2, 5), (2, 6), (3, 0)]
    assert not game.over(placed(game, edges, (3, 1)))[0]
    assert not game.over(placed(game, [(0, 5), (1, 6), (3, 0), (4, 1)], (2, 0)))[0]
    assert not game.over(placed(game, [(5, 0), (6, 0), (0, 0), (1, 0)], (2, 0)))[0]
    # Negative control: the same number of stones side by side.
    assert game.over(placed(game, [(2, 2), (2, 3), (2, 4), (2, 5)], (2, 6)))[0]


def test_more_than_five_win_too():
    board = played(Gomoku(9), "a1 a9 b1 b9 c1 c9 e1 e9 f1 f9 g1 g9 d1")
    assert Gomoku(9).score(board)[0].tolist() == [1, -1]


def test_stones_of_the_other_player_interrupt_a_line():
    assert not Gomoku(9).over(played(Gomoku(9), "a1 c1 b1 a3 d1 b3 e1 e3 f1"))[0]


def test_second_player_wins():
    board = played(Gomoku(9), "a1 a5 b1 b5 c1 c5 d1 d5 i9 e5")
    assert Gomoku(9).score(board)[0].tolist() == [-1, 1]


def test_line_on_the_very_last_cell_wins_and_no_line_is_a_draw():
    game = Gomoku(3, 3)
    won = played(game, "a1 b1 c1 a2 b2 a3 b3 c2 c3")
    assert won["num_stones"][0] == 9
    assert game.score(won)[0].tolist() == [1, -1]
    draw = played(game, "a1 b1 c1 a2 b2 a3 b3 c3 c2")
    assert game.over(draw)[0]
    assert game.score(draw)[0].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("size", "line"), [(5, 3), (5, 4), (6, 5), (7, 6), (9, 5), (13, 3), (15, 5), (19, 5)]
)
def test_random_games_are_open_spiels(size, line):
    settings = {"m": size, "n": size, "k": line}
    play_beside_open_spiel(Gomoku(size, line), "mnk", settings, 60 if size < 10 else 6)


def test_size_and_line_name_the_game_and_its_world():
    assert Config().world == Config().rules().name == "gomoku-9x9"
    assert Config(size=15).world == Config(size=15).rules().name == "gomoku-15x15"
    assert Config(size=4, line=3).world == Config(size=4, line=3).rules().name
    assert Config(size=4, line=3).world == "gomoku-4x4-line-3"


def test_line_longer_than_the_board_is_a_mistake():
    with pytest.raises(Mistake, match=r"no 5 stones in a line fit on 4 x 4: set env\.line=4"):
        Config(size=4).make()
