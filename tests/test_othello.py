"""Othello: paths and passes are those that are known, 4 x 4 is solved, and a plain second
implementation agrees on the small boards."""

from __future__ import annotations

import numpy as np
import pytest
from rules import moves, play_beside_open_spiel, plies, solve

from envs.othello import Config, Othello

PATHS = [1, 4, 12, 56, 244, 1396, 8200, 55092, 390216, 3005288]
BOTH_STUCK = (
    "e6 d6 c3 d3 c7 f4 e3 f7 c5 c6 e7 d2 b6 b3 c2 e8 f8 c1 a3 g8 f5 c4 d7 c8 d1 f6 b5 a6 g4 a5"
    " e2 f1 b7 g3 b4 a2 f3 g6 h3 h4 h6 b8 h5 a4 a7 g7 a1 b1 g5 h2 h7 e1 b2 d8 f2 h8 g1 a8 pass g2"
)  # the last empty cell, h1, is for nobody
DRAW = (
    "c4 c5 d6 c7 c6 b4 d7 f4 b7 c8 f3 e7 g4 h4 f7 e8 f5 b8 a4 e6 f6 c3 b3 g2 f8 g6 f2 b5 g5 g7"
    " d3 a6 a8 c2 g3 a5 e3 d8 h6 a2 a7 d2 g1 e1 a3 h5 g8 h2 a1 b2 h1 e2 d1 b1 c1 h7 h3 b6 f1 h8"
)
WIPED_OUT = "f5 f6 f7 f4 d3 e3 f3 c3 b2"


def played(game: Othello, names: str) -> np.ndarray:
    """Return the board after moves by name."""
    board = game.start(1)
    for move in names.split():
        assert not game.over(board)[0]
        board = game.play(board, np.array([game.action_names.index(move)]))
    return board


def lead(boards: np.ndarray) -> np.ndarray:
    """Return how many stones more the first player has, [N] int64."""
    return np.bitwise_count(boards["stones"]).astype(int) @ [1, -1]


class Plain:
    """The rules once more, cell by cell as they are told to a child."""

    def __init__(self, size: int) -> None:
        middle = size // 2
        self.size, self.player = size, 0
        self.stones = {(middle - 1, middle): 0, (middle, middle - 1): 0}
        self.stones |= {(middle - 1, middle - 1): 1, (middle, middle): 1}

    def turns(self, cell: tuple[int, int], player: int) -> list[tuple[int, int]]:
        found = []
        for down, right in np.ndindex(3, 3):
            line, (r, c) = [], cell
            while True:
                r, c = r + down - 1, c + right - 1
                if self.stones.get((r, c)) != 1 - player:
                    break
                line.append((r, c))
            if self.stones.get((r, c)) == player and (down, right) != (1, 1):
                found += line
        return found

    def legal(self, player: int) -> list[int]:
        cells = [cell for cell in np.ndindex(self.size, self.size) if cell not in self.stones]
        return [r * self.size + c for r, c in cells if self.turns((r, c), player)]

    def play(self, action: int) -> None:
        if action < self.size**2:
            cell = divmod(action, self.size)
            for turned in [cell, *self.turns(cell, self.player)]:
                self.stones[turned] = self.player
        self.player = 1 - self.player


def test_first_nine_plies_are_those_that_are_known():
    game = Othello()
    for number, ply in zip(range(9), plies(game), strict=False):
        assert ply.paths.sum() == PATHS[number]
        passes = game.action_mask(ply.boards)[:, -1]
        assert ply.paths[passes].sum() == (24 if number == 8 else 0)
        assert not game.over(ply.boards).any()
    parent, _, boards = moves(game, ply.boards)
    assert ply.paths[parent].sum() == PATHS[9]
    assert ply.paths[parent[game.over(boards)]].sum() == 228


def test_second_player_wins_four_by_four_by_eight():
    assert solve(Othello(4), lead) == -8
    assert solve(Othello(4), lambda boards: Othello(4).score(boards)[:, 0].astype(int)) == -1


@pytest.mark.parametrize("size", [4, 6, 8])
def test_random_games_are_those_of_a_plain_second_implementation(size):
    game, random = Othello(size), np.random.default_rng(0)
    num_passes = 0
    for _ in range(12 if size < 8 else 2):
        board, plain = game.start(1), Plain(size)
        while not game.over(board)[0]:
            legal = plain.legal(plain.player)
            num_passes += not legal
            legal = legal or [size**2]
            assert np.flatnonzero(game.action_mask(board)[0]).tolist() == legal
            assert game.player(board)[0] == plain.player
            action = int(random.choice(legal))
            plain.play(action)
            board = game.play(board, np.array([action]))
            cells = game.cells(board[0])
            assert {(r, c): cells[r, c] for r, c in np.argwhere(cells >= 0)} == plain.stones
        assert not plain.legal(0) + plain.legal(1)
        held = list(plain.stones.values())
        assert game.score(board)[0, 0] == np.sign(held.count(0) - held.count(1))
    assert num_passes or size == 8


def test_pass_is_legal_only_where_nothing_else_is():
    game = Othello()
    board = played(game, BOTH_STUCK.partition(" pass")[0])
    assert np.flatnonzero(game.action_mask(board)[0]).tolist() == [64]
    after = game.play(board, np.array([64]))
    assert (after["stones"] == board["stones"]).all()
    assert game.player(after)[0] == 1 - game.player(board)[0]
    with pytest.raises(ValueError, match=r"64 \(pass\) is not on board 0"):
        game.play(after, np.array([64]))


def test_game_is_over_where_neither_can_move():
    game = Othello()
    board = played(game, BOTH_STUCK)
    assert game.over(board)[0]
    assert np.bitwise_count(board["stones"]).sum() == 63
    assert game.score(board)[0].tolist() == [-1, 1]
    board = played(game, WIPED_OUT)
    assert game.over(board)[0]
    assert game.score(board)[0].tolist() == [1, -1]


def test_as_many_stones_is_a_draw():
    board = played(Othello(), DRAW)
    assert lead(board)[0] == 0
    assert Othello().over(board)[0]
    assert Othello().score(board)[0].tolist() == [0, 0]


def turned(game: Othello, boards: np.ndarray, k: int) -> np.ndarray:
    """Return the boards as symmetry k shows them, even where no game could lead there."""
    rows, columns = np.divmod(np.arange(game.size**2), game.size)
    bits, image = (8 * rows + columns).astype(np.uint64), boards.copy()
    for field in ("stones", "moves"):
        cells = boards[field][..., None] >> bits & np.uint64(1)  # [..., cells]
        cells = cells[..., game.symmetries.board_symmetries[k]]
        image[field] = (cells << bits).sum(-1, dtype=np.uint64)
    return image


@pytest.mark.parametrize("size", [4, 6, 8])
def test_rules_are_the_same_seen_through_all_eight_symmetries(size):
    game, random = Othello(size), np.random.default_rng(0)
    boards = game.start(50)
    while not game.over(boards).all():
        mask = game.action_mask(boards)
        action = np.where(mask, random.random(mask.shape), -1).argmax(1)
        following = game.play(boards, action)
        for k, table in enumerate(game.symmetries.action_symmetries):
            image = turned(game, boards, k)
            assert (game.action_mask(image) == mask[:, table]).all()
            then = game.play(image, np.argsort(table)[action])
            assert (then == turned(game, following, k)).all()
        boards = following


def test_random_games_are_open_spiels():
    play_beside_open_spiel(Othello(), "othello", {}, 100)


def test_size_names_the_game_and_its_world():
    assert Config(size=6).world == Config(size=6).rules().name == "othello-6x6"
