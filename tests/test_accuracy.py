"""Laws of rlplay/accuracy.py: who plays by the exact values is right, and nobody else wholly is."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from agents.perfect import Config as Perfect
from agents.uniform import Config as Uniform
from envs import _connect_four_solver as solver
from envs.connect_four import Config as ConnectFour
from envs.connect_four import own_and_taken
from envs.othello import Config as Othello
from envs.tictactoe import Config as TicTacToe
from rlplay.accuracy import accuracy, longest, positions, sentence, solved
from rlplay.core import Agent, Decision, Step
from rlplay.evaluate import random_legal

FOUR, TICTACTOE = ConnectFour().rules(), TicTacToe().rules()


class Told(Agent):
    """Plays what it was told."""

    def __init__(self, action: list[int]) -> None:
        self.action = np.array(action)

    def act(self, step: Step, explore: bool = True) -> Decision:
        return Decision(self.action, {})


def stones(state):
    return np.bitwise_count(state["stones"]).sum(1)


@cache
def of(game):
    """Return boards of a game, made once."""
    return positions(game, 300)


def judged(config):
    """Return a game, boards of it that are solved quickly, and what their moves are worth."""
    game = FOUR if config.name == "connect_four" else config.rules()
    boards = of(game)
    if config.name == "connect_four":
        boards = boards[stones(boards) >= 18]
    return game, *solved(game, boards, print)


@pytest.mark.parametrize("config", [TicTacToe(), ConnectFour(), Othello(size=4)])
def test_perfect_player_is_always_right_and_a_random_one_is_not(config):
    game, boards, exact = judged(config)
    spec = config.make().spec
    perfect, uniform = (
        accuracy(game, kind().make(spec, 0), boards, exact) for kind in (Perfect, Uniform)
    )
    assert perfect["right"] == perfect["best"] == 1
    # A random player is right as often as right moves are among the legal ones.
    legal = ~np.isnan(exact)
    top, bottom = np.nanmax(exact, 1), np.nanmin(exact, 1)
    matters = np.sign(top) != np.sign(bottom)
    share = ((np.sign(exact) == np.sign(top)[:, None]) & legal).sum(1) / legal.sum(1)
    expected = share[matters].mean()
    assert expected < 0.8
    assert uniform["right"] == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(matters.sum()))
    assert uniform["best"] < 0.8


def test_player_of_the_worst_moves_is_never_right():
    game, boards, exact = judged(TicTacToe())
    worst = np.nanargmin(exact, 1).tolist()
    found = accuracy(game, Told(worst), boards, exact)
    assert found["right"] == found["best"] == 0
    assert sentence(found).startswith("0.0% of moves keep the result (opening 0%")


def test_shares_are_those_counted_by_hand():
    boards = np.repeat(FOUR.start(1), 5)
    nan = np.nan
    exact = np.array(
        [
            [3, 2, 0, -1, nan, nan, nan],  # a slower win is right, and not the best
            [0, -5, 0, -9, nan, nan, nan],  # a draw is kept
            [0, -5, 0, -9, nan, nan, nan],  # a draw is lost
            [-2, -4, nan, nan, nan, nan, nan],  # lost anyhow: only when is asked
            [1, 1, 1, nan, nan, nan, nan],  # nothing to choose
        ],
        np.float32,
    )
    found = accuracy(FOUR, Told([1, 2, 1, 0, 2]), boards, exact)
    assert found == {"right": 2 / 3, "right_opening": 2 / 3, "best": 2 / 4, "boards": 3}
    assert accuracy(FOUR, Told([2]), boards[4:], exact[4:]) == {"boards": 0}
    assert sentence({"boards": 0}) == "there is no solved board on which moves differ"


def test_phases_are_thirds_of_the_board_and_make_up_the_whole():
    game, boards, exact = judged(TicTacToe())
    found = accuracy(game, Uniform().make(TicTacToe().make().spec, 0), boards, exact)
    matters = np.sign(np.nanmax(exact, 1)) != np.sign(np.nanmin(exact, 1))
    counts = np.bincount(stones(boards)[matters] // 3, minlength=3)
    shares = [found[f"right_{phase}"] for phase in ("opening", "middle", "end")]
    assert found["right"] == pytest.approx(shares @ counts / counts.sum())
    assert found["boards"] == counts.sum()


def test_positions_are_unfinished_of_all_lengths_and_always_the_same():
    boards = of(FOUR)
    assert len(boards) == 300
    assert not FOUR.over(boards).any()
    assert (np.bincount(stones(boards) // 6, minlength=7) > 20).all()
    boards = of(TICTACTOE)
    assert (np.bincount(stones(boards), minlength=9) > 20).all()
    assert (boards == positions(TICTACTOE, 300)).all()
    assert (boards != positions(TICTACTOE, 300, seed=1)).any()


def test_no_board_is_sought_that_hardly_any_game_reaches():
    game = Othello(size=4).rules()
    boards = positions(game, 200)
    played = stones(boards) - 4  # no more than that, for there are passes
    assert not game.over(boards).any()
    assert played.max() > 8
    assert (longest(FOUR), longest(TICTACTOE)) == (42, 9)
    assert longest(game) < game.max_moves  # which would be sought for ever


def test_early_boards_are_solved_quickly_where_all_that_follows_is_on_file():
    nothing = np.empty(0, np.uint64)
    start, keys = own_and_taken(FOUR.start(1)), set()
    for column in range(7):  # two by two they are mirror images, which are on file once
        own, taken = own_and_taken(FOUR.play(FOUR.start(1), np.array([column])))
        keys.add(int(solver.key(own[0], taken[0], 1)))
    on_file = np.array(sorted(keys), np.uint64)
    assert len(on_file) == 4
    assert solver.quick(*start, on_file).all()
    assert not solver.quick(*start, on_file[1:]).any()
    boards = of(FOUR)
    many = stones(boards) >= solver.MANY_STONES - 1
    assert FOUR.solves_quickly(boards)[many].all()
    assert (solver.quick(*own_and_taken(boards), nothing) >= many).all()
    assert not solver.quick(*own_and_taken(boards), nothing)[stones(boards) < 4].any()


def test_board_that_wins_with_every_move_needs_no_file():
    state = FOUR.start(1)
    for column in (0, 1, 0, 1, 0, 1):
        state = FOUR.play(state, np.array([column]))
    keys = []
    for column in range(1, 7):  # column 0 wins at once
        following = FOUR.play(state, np.array([column]))
        own, taken = own_and_taken(following)
        keys.append(int(solver.key(own[0], taken[0], 7)))
    on_file = np.sort(np.array(keys, np.uint64))
    assert solver.quick(*own_and_taken(state), on_file).all()
    assert not solver.quick(*own_and_taken(state), on_file[1:]).any()


def test_boards_that_would_take_long_are_left_out_and_that_is_said():
    generator, state, said = np.random.default_rng(0), FOUR.start(60), []
    for _ in range(5):  # far too many positions for the file to hold
        state = FOUR.play(state, random_legal(FOUR.action_mask(state), generator))
    late = of(FOUR)[stones(of(FOUR)) >= 20]
    known = int(FOUR.solves_quickly(state).sum())
    boards, exact = solved(FOUR, np.concatenate([state, late]), said.append)
    assert len(boards) == len(exact) == known + len(late) < 60 + len(late)
    assert len(said) == 1
    assert f"on {len(boards)} of {60 + len(late)} boards" in said[0]
    solved(TICTACTOE, positions(TICTACTOE, 50), said.append)
    assert len(said) == 1
