"""Hex: who joins her sides, exactly one of two, and OpenSpiel agrees."""

from __future__ import annotations

import numpy as np
import pytest
from rules import play_beside_open_spiel, plies, solve

from envs.hex import Config, Hex
from rlplay.palette import AMBER, BLUE

# On 3 x 3: all ways to play up to each ply, and those that end there, as OpenSpiel 2.0.2 counts.
PATHS = [1, 9, 72, 504, 3024, 15120, 54720, 146880, 207360, 120960]
ENDS = [0, 0, 0, 0, 0, 1440, 5760, 43200, 86400, 120960]


def played(game: Hex, cells: str) -> np.ndarray:
    """Return the board after moves by name; the game must not end before the last."""
    board = game.start(1)
    for cell in cells.split():
        assert not game.over(board)[0]
        board = game.play(board, np.array([game.action_names.index(cell)]))
    return board


def placed(game: Hex, stones: np.ndarray, player: int, last: tuple[int, int]) -> np.ndarray:
    """Return the board on which a player has these stones [H, H] bool, having put the last one
    just now, and the other player none: no game leads there, but a chain is a chain."""
    board, before = game.start(1), stones.copy()
    before[last] = False
    lines = before.T if player else before
    board["stones"][0, player, : game.size] = lines @ (1 << np.arange(game.size))
    board["player"] = player
    assert not game.over(board)[0]
    return game.play(board, np.array([last[0] * game.size + last[1]]))


def joins(stones: np.ndarray, player: int) -> bool:
    """Return whether a player's stones [H, H] bool join her sides, going from stone to stone."""
    stones = stones.T if player else stones
    size = len(stones)
    found = [(0, c) for c in range(size) if stones[0, c]]
    for r, c in found:  # grows while it is gone through
        for down, right in ((-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0)):
            near = r + down, c + right
            if min(near) >= 0 and max(near) < size and stones[near] and near not in found:
                found.append(near)
    return any(r == size - 1 for r, _ in found)


def test_all_games_on_three_by_three_are_those_of_open_spiel():
    game = Hex(3)
    for paths, ends, ply in zip(PATHS, ENDS, plies(game), strict=True):
        assert ply.paths.sum() == paths
        assert ply.paths[game.over(ply.boards)].sum() == ends


def test_first_player_wins_three_by_three():
    assert solve(Hex(3), lambda boards: Hex(3).score(boards)[:, 0].astype(int)) == 1


@pytest.mark.parametrize("size", [3, 4, 7, 13])
def test_full_board_has_joined_the_sides_of_exactly_one(size):
    """Hex's theorem; each board's cells are filled one after the other until somebody wins."""
    game, random = Hex(size), np.random.default_rng(size)
    for _ in range(40):
        cells = random.permutation(size * size)
        board, first = game.start(1), np.zeros(size * size, bool)
        first[cells[::2]] = True
        while not game.over(board)[0]:
            mover = game.player(board)[0]
            board = game.play(board, cells[:1])
            cells = cells[1:]
        first = first.reshape(size, size)
        assert joins(first, 0) != joins(~first, 1)
        assert game.score(board)[0, 0] == (1 if joins(first, 0) else -1)
        assert game.score(board)[0, mover] == 1, "whoever moved last has won"


@pytest.mark.parametrize("size", [3, 7, 13])
@pytest.mark.parametrize("player", [0, 1])
def test_straight_chain_joins_and_one_with_a_gap_does_not(size, player):
    game = Hex(size)
    for line, k in np.ndindex(size, size):
        stones = np.zeros((size, size), bool)
        stones[:, line] = True
        gap, last = (k, line), ((k + 1) % size, line)
        if player:
            stones, gap, last = stones.T, gap[::-1], last[::-1]
        assert game.score(placed(game, stones, player, last))[0, player] == 1
        stones[gap] = False
        assert not game.over(placed(game, stones, player, last))[0]


def test_cells_that_only_meet_at_a_corner_are_no_chain():
    game = Hex(3)
    assert not game.over(played(game, "a1 a3 b2 b1 c3"))[0]  # (r, c) and (r + 1, c + 1)
    assert game.score(played(game, "c1 a1 b2 b1 a3"))[0].tolist() == [1, -1]  # and (r + 1, c - 1)
    assert game.score(played(game, "a1 c1 b1 b2 c3 a3"))[0].tolist() == [-1, 1]


@pytest.mark.parametrize("player", [0, 1])
@pytest.mark.parametrize(
    "rows",
    [
        "X...... XXXXXX. .....X. .XXXXX. .X..... .XXXXX. .....X.",
        "X...... X..XXX. X.X..X. X.X..X. XXX..X. .....X. .....X.",  # down, up and down again
    ],
)
def test_chain_is_found_however_it_winds(rows, player):
    game, stones = Hex(7), np.array([[c == "X" for c in row] for row in rows.split()])
    stones = stones.T if player else stones
    assert joins(stones, player)
    cells = [tuple(cell) for cell in np.argwhere(stones).tolist()]
    for last in cells:
        assert game.score(placed(game, stones, player, last))[0, player] == 1
    num_gaps = 0
    for gap in cells:
        rest = stones.copy()
        rest[gap] = False
        last = cells[0] if gap != cells[0] else cells[1]
        over = bool(game.over(placed(game, rest, player, last))[0])
        assert over == joins(rest, player)
        num_gaps += not over
    assert num_gaps > 12


def test_win_on_the_very_last_cell():
    game = Hex(3)
    board = played(game, "c3 b3 a1 c2 a3 b2 c1 b1 a2")
    assert (game.cells(board[0]) >= 0).all()
    assert game.score(board)[0].tolist() == [1, -1]


@pytest.mark.parametrize("size", [3, 4, 5, 7, 11, 13])
def test_random_games_are_open_spiels(size):
    play_beside_open_spiel(Hex(size), "hex", {"board_size": size}, 60 if size < 10 else 8)


def test_player_who_moves_sees_which_sides_are_hers():
    game = Hex(5)
    board = game.start(1)
    assert not game.observe(board)[0, 2].any()
    board = game.play(board, np.array([7]))
    seen = game.observe(board)[0]
    assert seen[2].all()
    assert np.argwhere(seen[1]).tolist() == [[1, 2]]
    assert not seen[0].any()


def test_rows_of_text_lean_to_the_right():
    lines = Hex(3).show(played(Hex(3), "b1 a3")).splitlines()
    assert lines == ["  a b c", "1 . X .", " 2 . . .", "  3 O . .", "X to move"]


def test_picture_shows_stones_and_sides_in_the_players_colours():
    game = Hex(5)
    empty, board = game.draw(game.start(1)), played(game, "c3")
    picture = game.draw(board, 12)
    tall, wide, _ = empty.shape
    middle = (slice(tall // 2 - 30, tall // 2 + 10), slice(wide // 2 - 20, wide // 2 + 20))
    top, left = empty[: tall // 5], empty[:, : wide // 2]
    assert (top == AMBER).all(2).sum() > (left[tall // 5 : -tall // 4] == AMBER).all(2).sum()
    assert (left == BLUE).all(2).any()
    assert not (empty[middle] == AMBER).all(2).any()
    assert (picture[middle] == AMBER).all(2).sum() > 200
    assert (game.draw(board) != picture).any()


def test_size_names_the_game_and_its_world():
    assert Config(size=11).world == Config(size=11).rules().name == "hex-11x11"
