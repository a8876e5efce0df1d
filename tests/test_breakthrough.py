"""Breakthrough: steps and captures, both ways to win, and OpenSpiel agrees."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
from rules import moves, plies, solve

from envs.breakthrough import Breakthrough, Config

# Ways to play up to each ply, and those that end there, as OpenSpiel 2.0.2 counts.
PATHS = {
    8: [1, 22, 484, 11132, 256036, 6182818],
    6: [1, 16, 256, 4308, 71478, 1248290],
    5: [1, 13, 169, 1911, 21514, 232478, 2467006],
    4: [1, 10, 100, 814, 6324, 46350, 303122, 1868262],
}
ENDS = [0, 0, 0, 0, 0, 2886, 20664, 334898]  # on 4 x 4


def position(game: Breakthrough, rows: str, player: int = 0) -> np.ndarray:
    """Return a board given as text, the top row first."""
    board = game.start(1)
    for stones, letter in enumerate("XO"):
        cells = [c == letter for c in rows.replace(" ", "")]
        board["stones"][0, stones] = sum(1 << i for i, cell in enumerate(cells) if cell)
    board["player"] = player
    return board


def legal(game: Breakthrough, board: np.ndarray) -> set[str]:
    return {game.action_names[a] for a in np.flatnonzero(game.action_mask(board)[0])}


def play(game: Breakthrough, board: np.ndarray, move: str) -> np.ndarray:
    return game.play(board, np.array([game.action_names.index(move)]))


def rows(game: Breakthrough, board: np.ndarray) -> str:
    return " ".join("".join("XO."[cell] for cell in row) for row in game.cells(board[0]))


@pytest.mark.parametrize("size", PATHS)
def test_first_plies_are_those_of_open_spiel(size):
    game = Breakthrough(size)
    *earlier, last = islice(plies(game), len(PATHS[size]) - 1)
    parent, _, boards = moves(game, last.boards)
    counts = [int(ply.paths.sum()) for ply in [*earlier, last]]
    assert [*counts, last.paths[parent].sum()] == PATHS[size]
    if size == 4:
        ends = [ply.paths[game.over(ply.boards)].sum() for ply in [*earlier, last]]
        assert [*ends, last.paths[parent[game.over(boards)]].sum()] == ENDS


def test_first_player_wins_four_by_four_and_whoever_moves_always_can():
    game = Breakthrough(4)
    levels = list(plies(game))
    assert len(levels) == game.max_moves + 1 == 18, "the bound is reached"
    for ply in levels:
        assert game.action_mask(ply.boards).any(1).all()
        assert (game.score(ply.boards)[game.over(ply.boards)] != 0).all()
    assert solve(game, lambda boards: game.score(boards)[:, 0].astype(int)) == 1


@pytest.mark.parametrize("size", [4, 5, 6, 8])
def test_random_games_are_open_spiels(size):
    pyspiel: Any = pytest.importorskip("pyspiel")
    game, random = Breakthrough(size), np.random.default_rng(size)
    peer = pyspiel.load_game("breakthrough", {"rows": size, "columns": size})
    for _ in range(30):
        board, other = game.start(1), peer.new_initial_state()
        while not game.over(board)[0]:
            assert not other.is_terminal()
            player = int(game.player(board)[0])
            assert player == other.current_player()
            drawn = [line[1:] for line in str(other).splitlines()[:size]]  # first player on top
            text = rows(game, board).replace("X", "b").replace("O", "w")
            assert text.split() == drawn[::-1]
            # One of theirs is (row, column, one of six ways, whether it takes a stone).
            theirs = {action // 2: action for action in other.legal_actions()}
            ours = {}
            for action in np.flatnonzero(game.action_mask(board)[0]).tolist():
                row, column = divmod(action // 3, size)
                ours[((size - 1 - row) * size + column) * 6 + 3 * player + action % 3] = action
            assert set(ours) == set(theirs)
            chosen = int(random.choice(list(ours)))
            board = game.play(board, np.array([ours[chosen]]))
            other.apply_action(theirs[chosen])
        assert other.is_terminal()
        assert game.score(board)[0].tolist() == other.returns()


def test_stones_move_forward_take_aslant_and_are_stopped_ahead():
    game = Breakthrough(4)
    board = position(game, "...O .O.. .X.. X..X")
    assert legal(game, board) == {
        "b2-left", "b2-right", "a1-ahead", "d1-left", "d1-ahead",
    }  # fmt: skip
    board = position(game, "...O .OO. .X.. X..X")
    taken = play(game, board, "b2-right")
    assert rows(game, taken) == "...O .OX. .... X..X"
    assert legal(game, taken) == {"d4-left", "d4-ahead", "b3-left", "b3-ahead", "b3-right"}
    assert rows(game, play(game, taken, "d4-left")) == ".... .OO. .... X..X"
    back = play(game, taken, "b3-right")
    assert rows(game, back) == "...O ..X. ..O. X..X"
    assert rows(game, play(game, back, "d1-left")) == "...O ..X. ..X. X..."


def test_stones_on_the_edge_do_not_come_back_on_the_other_side():
    game = Breakthrough(8)
    for side, player in [("X", 0), ("O", 1)]:
        text = ["........"] * 8
        text[4], text[3] = f"{side}......{side}", f"{side}......{side}"
        names = legal(game, position(game, " ".join(text), player))
        blocked = "4" if player == 0 else "5"
        free = "5" if player == 0 else "4"
        assert names == {
            f"a{free}-ahead", f"a{free}-right", f"h{free}-ahead", f"h{free}-left",
            f"a{blocked}-right", f"h{blocked}-left",
        }  # fmt: skip


@pytest.mark.parametrize("size", [4, 5, 6, 7, 8])
def test_stone_on_the_other_side_wins(size):
    game, empty, edge = Breakthrough(size), "." * size, "abcdefgh"[size - 1]
    left, right = "O" + "." * (size - 1), "." * (size - 1) + "X"
    board = position(game, " ".join([left, right, *[empty] * (size - 2)]))
    won = play(game, board, f"{edge}{size - 1}-ahead")
    assert game.over(won)[0]
    assert game.score(won)[0].tolist() == [1, -1]
    text = " ".join([*[empty] * (size - 2), left, right])
    lost = play(game, position(game, text, 1), "a2-ahead")
    assert game.score(lost)[0].tolist() == [-1, 1]
    assert not game.over(play(game, position(game, text), f"{edge}1-ahead"))[0]


def test_taking_the_last_stone_wins():
    game = Breakthrough(8)
    text = ["........"] * 8
    text[4], text[3] = "...X....", "....O..."
    won = play(game, position(game, " ".join(text)), "d4-right")
    assert game.over(won)[0]
    assert game.score(won)[0].tolist() == [1, -1]
    lost = play(game, position(game, " ".join(text), 1), "e5-left")
    assert game.score(lost)[0].tolist() == [-1, 1]
    text[0] = "O......."
    assert not game.over(play(game, position(game, " ".join(text)), "d4-right"))[0]


def test_player_who_moves_sees_which_way_is_forward():
    game = Breakthrough(6)
    board = game.start(1)
    seen = game.observe(board)[0]
    assert seen[0, 4:].all()
    assert seen[1, :2].all()
    assert seen[:2].sum() == 24
    assert not seen[2].any()
    seen = game.observe(play(game, board, "a2-ahead"))[0]
    assert seen[0, :2].all()
    assert seen[1, 3, 0] == 1
    assert seen[2].all()


def test_cell_that_a_stone_has_moved_to_is_marked():
    game = Breakthrough(8)
    board = play(game, game.start(1), "c2-right")
    action = game.action_names.index("c2-right")
    assert game.marked(board[0], action) == 5 * 8 + 3
    answer = play(game, board, "c7-left")
    assert game.marked(answer[0], game.action_names.index("c7-left")) == 2 * 8 + 1
    differs = np.argwhere((game.draw(board, action) != game.draw(board)).any(2))
    tall, wide, _ = game.draw(board).shape
    row, column = (differs.mean(0) - 36) / ((tall - 72) / 8, (wide - 72) / 8)
    assert (int(row), int(column)) == (5, 3)


def test_size_names_the_game_and_its_world():
    assert Config(size=5).world == Config(size=5).rules().name == "breakthrough-5x5"
