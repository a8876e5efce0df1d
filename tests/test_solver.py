"""Exact values: against plain brute force, against what is known, and against each other."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from envs import _connect_four_solver as solver
from envs.connect_four import WIDTH, ConnectFour
from envs.othello import Othello
from envs.tictactoe import TicTacToe
from rlplay.core import Array, Game
from rlplay.evaluate import random_legal

CONNECT_FOUR, TICTACTOE, OTHELLO = ConnectFour(), TicTacToe(), Othello(4)


def late(game: Game, num_boards: int, num_moves: int, seed: int = 0) -> Array:
    """Return unfinished boards after so many random moves, [N]."""
    generator, found = np.random.default_rng(seed), game.start(0)
    while len(found) < num_boards:
        state = game.start(10 * num_boards)
        for _ in range(num_moves):
            state = game.play(state, random_legal(game.action_mask(state), generator))
        found = np.concatenate([found, state[~game.over(state)]])
    return found[:num_boards]


@cache
def brute_force(game: Game, board: bytes) -> float:
    """Return the value of an unfinished board to the player who moves: the stones that the winner
    has left before he wins."""
    state = np.frombuffer(board, game.dtype)
    player, num_free = int(game.player(state)[0]), game.max_moves - int(game.observe(state).sum())
    best = -np.inf
    for action in np.flatnonzero(game.action_mask(state)[0]):
        following = game.play(state, np.array([action]))
        if game.over(following)[0]:
            worth = game.score(following)[0, player] * ((num_free + 1) // 2)
        else:
            worth = -brute_force(game, following.tobytes())
        best = max(best, worth)
    return best


def test_connect_four_is_solved_as_by_brute_force():
    found = []
    for num_moves in range(31, 42):
        boards = late(CONNECT_FOUR, 12, num_moves, seed=num_moves)
        values = CONNECT_FOUR.solve(boards)
        assert (np.isnan(values) == ~CONNECT_FOUR.action_mask(boards)).all()
        best = np.nanmax(values, 1)
        assert best.tolist() == [brute_force(CONNECT_FOUR, board.tobytes()) for board in boards]
        found += best.tolist()
    assert {-2, -1, 0, 1, 2} < {*found}  # not all of them are drawn, or won at once


def test_value_of_a_move_is_what_it_leads_to():
    boards = late(CONNECT_FOUR, 40, 20)
    values = CONNECT_FOUR.solve(boards)
    for column in range(WIDTH):
        legal = ~np.isnan(values[:, column])
        following = CONNECT_FOUR.play(boards[legal], np.full(legal.sum(), column))
        over = CONNECT_FOUR.over(following)
        assert (values[legal, column][over] == (42 - 20 + 1) // 2).all()
        worth = np.nanmax(CONNECT_FOUR.solve(following[~over]), 1)
        assert (values[legal, column][~over] == -worth).all()


def test_mirrored_boards_have_mirrored_values():
    generator = np.random.default_rng(0)
    for num_moves in (14, 18, 24, 32):  # more and fewer stones than are looked up as one
        state = mirrored = CONNECT_FOUR.start(20)
        for _ in range(num_moves):
            action = random_legal(CONNECT_FOUR.action_mask(state), generator)
            mirrored = CONNECT_FOUR.play(
                mirrored, np.where(CONNECT_FOUR.over(state), 0, WIDTH - 1 - action)
            )
            state = CONNECT_FOUR.play(state, action)
        values = CONNECT_FOUR.solve(state)
        solver.memory.cache_clear()
        np.testing.assert_array_equal(CONNECT_FOUR.solve(mirrored), values[:, ::-1])


def test_values_do_not_depend_on_what_was_solved_before():
    boards = late(CONNECT_FOUR, 30, 17)
    first = CONNECT_FOUR.solve(boards)
    again = CONNECT_FOUR.solve(boards[::-1])[::-1]
    solver.memory.cache_clear()
    alone = np.concatenate([CONNECT_FOUR.solve(boards[i : i + 1]) for i in range(30)])
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, alone)


def test_full_and_crowded_tables_give_the_same_values():
    boards = late(CONNECT_FOUR, 30, 20)
    tiny, large = np.zeros(2**4, np.uint64), np.zeros(2**18, np.uint64)
    for one in zip(*stones(boards), strict=True):
        assert solver.value(*one, tiny) == solver.value(*one, large)


def test_values_are_read_from_the_file(tmp_path):
    board = late(CONNECT_FOUR, 1, 30)
    values = CONNECT_FOUR.solve(board)[0]
    column = int(np.flatnonzero(~np.isnan(values) & (values < 6))[0])  # it does not win at once
    (key,) = keys(CONNECT_FOUR.play(board, np.array([column])))
    path = tmp_path / "openings.csv"
    path.write_text(f"key,value\n{key},17\n")
    own, taken = stones(board)
    found = solver.move_values(own, taken, *solver.openings(path), solver.memory(10))[0]
    assert found[column] == -17
    np.testing.assert_array_equal(np.delete(found, column), np.delete(values, column))


def stones(state: Array) -> tuple[Array, Array]:
    """Return the stones of who moves, and all stones, [N] uint64."""
    first, second = state["stones"].T
    return np.where(state["player"] == 0, first, second), first | second


def keys(state: Array) -> list[int]:
    return [solver.key(*one, solver.count(one[1])) for one in zip(*stones(state), strict=True)]


@pytest.mark.parametrize(
    ("game", "moves"), [(CONNECT_FOUR, [0, 1, 0, 1, 0, 1, 0]), (TICTACTOE, [0, 3, 1, 4, 2])]
)
def test_finished_boards_are_worth_nothing(game, moves):
    state = game.start(2)
    for move in moves:
        state = game.play(state, np.array([move, move]))
    assert game.over(state).all()
    live = late(game, 3, game.max_moves - 4)
    values = game.solve(np.concatenate([state, live]))
    assert not values[:2].any()
    np.testing.assert_array_equal(values[2:], game.solve(live))
    assert game.solve(live[:0]).shape == (0, game.num_actions)


def test_tictactoe_is_solved_as_by_brute_force():
    state, generator = TICTACTOE.start(40), np.random.default_rng(0)
    for _ in range(9):
        live = state[~TICTACTOE.over(state)]
        best = np.nanmax(TICTACTOE.solve(live), 1)
        assert best.tolist() == [brute_force(TICTACTOE, board.tobytes()) for board in live]
        state = TICTACTOE.play(state, random_legal(TICTACTOE.action_mask(state), generator))


def test_all_positions_of_tictactoe_are_listed():
    TICTACTOE.solve(TICTACTOE.start(1))
    assert len(TICTACTOE.solved.known) == 5478


def test_board_that_cannot_come_up_is_solved_too():
    state = TICTACTOE.start(1)
    state["stones"] = 0b000000011, 0b000000000  # two stones before the other player has any
    values = TICTACTOE.solve(state)[0]
    assert np.isnan(values[:2]).all()
    assert values[2] == 4
    assert (values[3:] > 0).all()


def test_second_player_wins_small_othello_by_eight():
    values = OTHELLO.solve(OTHELLO.start(1))
    legal = OTHELLO.action_mask(OTHELLO.start(1))
    assert (values[legal] == -8).all()
    assert np.isnan(values[~legal]).all()


def test_small_othello_is_solved_as_by_brute_force():
    """Passes included: then the same player moves again."""

    @cache
    def value(data: bytes) -> int:
        state = np.frombuffer(data, OTHELLO.dtype)
        player = int(OTHELLO.player(state)[0])
        if OTHELLO.over(state)[0]:
            own, other = (int(s).bit_count() for s in state["stones"][0])
            return own - other if player == 0 else other - own
        moves = np.flatnonzero(OTHELLO.action_mask(state)[0])
        return max(-value(OTHELLO.play(state, np.array([m])).tobytes()) for m in moves)

    passes = 0
    for num_moves in (5, 6, 7, 8, 9):
        boards = late(OTHELLO, 8, num_moves)
        best = np.nanmax(OTHELLO.solve(boards), 1)
        assert best.tolist() == [value(board.tobytes()) for board in boards]
        passes += int(OTHELLO.action_mask(boards)[:, -1].sum())
    assert passes > 0


@pytest.mark.parametrize("game", [Othello(6), Othello(8)])
def test_large_othello_is_not_said_to_be_solved(game):
    assert not hasattr(game, "solve")
