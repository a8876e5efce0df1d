"""Connect Four: paths, positions and wins are those that are known (OEIS A212693)."""

from __future__ import annotations

import numpy as np
import pytest
from rules import moves, play_beside_open_spiel, plies

from envs.connect_four import CELLS, FULL, HEIGHT, PITCH, WIDTH, Config, won

GAME = Config().rules()
PATHS = [1, 7, 49, 343, 2401, 16807, 117649, 823536, 5673234, 39394572]
POSITIONS = [1, 7, 49, 238, 1120, 4263, 16422, 54859, 184275]
WINS = {7: 13032, 8: 44430, 9: 1086882}


def played(columns: str) -> np.ndarray:
    """Return the board after stones in these columns, counted from 1."""
    board = GAME.start(1)
    for column in columns:
        assert not GAME.over(board)[0]
        board = GAME.play(board, np.array([int(column) - 1]))
    return board


def test_first_nine_plies_are_those_that_are_known():
    for number, ply in zip(range(9), plies(GAME), strict=False):
        assert ply.paths.sum() == PATHS[number]
        assert len(ply.boards) == POSITIONS[number]
        won_here = GAME.score(ply.boards)[:, (number + 1) % 2] == 1
        assert ply.paths[won_here].sum() == WINS.get(number, 0)
        assert (GAME.over(ply.boards) == won_here).all()
    parent, _, boards = moves(GAME, ply.boards)
    assert ply.paths[parent].sum() == PATHS[9]
    assert ply.paths[parent[GAME.score(boards)[:, 0] == 1]].sum() == WINS[9]


def test_lines_are_found_wherever_they_are_and_nowhere_else():
    cells = {(r, c) for r, c in np.ndindex(HEIGHT, WIDTH)}
    steps = [(0, 1), (1, 0), (1, 1), (1, -1)]
    lines = [
        line
        for r, c in cells
        for down, right in steps
        if {*(line := [(r + k * down, c + k * right) for k in range(4)])} <= cells
    ]
    assert len(lines) == 69
    masks = [sum(1 << c * PITCH + HEIGHT - 1 - r for r, c in line) for line in lines]
    assert all(won(np.uint64(mask)) for mask in masks)
    random, num_won = np.random.default_rng(0), 0
    for stones in random.integers(0, 2**63, 20_000, np.uint64) & FULL:
        truth = any(int(stones) & mask == mask for mask in masks)
        assert won(stones & FULL) == truth
        num_won += truth
    assert 1000 < num_won < 19_000


def test_win_with_the_last_stone_is_no_draw():
    board = played("726665223335346546334161545471725214177712")
    assert GAME.over(board)[0]
    assert GAME.score(board)[0].tolist() == [-1, 1]


def test_full_board_without_a_line_is_a_draw():
    board = played("657656454212543614457175133322213266174737")
    assert GAME.over(board)[0]
    assert GAME.score(board)[0].tolist() == [0, 0]


def test_full_column_takes_no_stone():
    board = played("444444")
    assert GAME.action_mask(board)[0].tolist() == [True] * 3 + [False] + [True] * 3
    with pytest.raises(ValueError, match=r"3 \(4\) is not on board 0 of connect_four"):
        GAME.play(board, np.array([3]))


def test_mark_is_on_the_stone_that_fell_last():
    assert GAME.marked(played("4")[0], 3) == CELLS[5, 3]
    assert GAME.marked(played("4445")[0], 3) == CELLS[3, 3]
    assert GAME.marked(played("444444")[0], 3) == CELLS[0, 3]


def test_board_is_shown_as_it_stands():
    assert GAME.show(played("4435")[0]).splitlines() == [
        " 1 2 3 4 5 6 7",
        " . . . . . . .",
        " . . . . . . .",
        " . . . . . . .",
        " . . . . . . .",
        " . . . O . . .",
        " . . X X O . .",
        "X to move",
    ]


def test_random_games_are_open_spiels():
    play_beside_open_spiel(GAME, "connect_four", {}, 200)
