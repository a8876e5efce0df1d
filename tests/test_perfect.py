"""The perfect player loses nothing that it need not lose, whatever the other one does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agents import perfect
from envs import connect_four, gomoku, gridworld, othello, tictactoe
from rlplay.core import Array, Game, Mistake
from rlplay.evaluate import random_legal
from rlplay.game import step_at

TICTACTOE, OTHELLO = tictactoe.Config(), othello.Config(size=4)


def player(config: Any, **settings: Any) -> perfect.Perfect:
    return perfect.Config(**settings).make(config.make().spec, 0)


def moves(game: Game, state: Array, allowed: Array) -> Array:
    """Return the boards [M] after all allowed moves [N, A] bool, equal ones once."""
    board, action = np.nonzero(allowed)
    following = game.play(state[board], action)
    words = following.view(f"V{game.dtype.itemsize}")
    return following[np.unique(words, return_index=True)[1]]


def ends(game: Game, side: int, choose: Any) -> Array:
    """Return all finished boards [M] that can come up where `side` plays moves of `choose` [N, A]
    bool, any of them, and the other one plays any."""
    state, found = game.start(1), []
    while len(state):
        over = game.over(state)
        found.append(state[over])
        state = state[~over]
        own = game.player(state) == side
        allowed = game.action_mask(state)
        allowed[own] = choose(state[own])
        state = moves(game, state, allowed)
    return np.concatenate(found)


def best_moves(agent: perfect.Perfect) -> Any:
    """Return all moves that the agent may play."""

    def choose(state: Array) -> Array:
        q_values = agent.act(step_at(agent.game, state)).notes["q_values"]
        return q_values == q_values.max(1, keepdims=True)

    return choose


@pytest.mark.parametrize("side", [0, 1])
def test_it_never_loses_at_tictactoe_whatever_is_played(side):
    agent = player(TICTACTOE)
    finished = ends(agent.game, side, best_moves(agent))
    assert (agent.game.score(finished)[:, side] >= 0).all()
    assert (agent.game.score(finished)[:, side] > 0).any()
    careless = ends(agent.game, side, agent.game.action_mask)
    assert (agent.game.score(careless)[:, side] < 0).any()


def test_second_player_never_wins_small_othello_by_less_than_eight():
    agent = player(OTHELLO)
    finished = ends(agent.game, 1, best_moves(agent))
    lead = np.bitwise_count(finished["stones"]).astype(int) @ [-1, 1]
    assert lead.min() == 8
    assert lead.max() > 8


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("ties", ["random", "first"])
def test_it_plays_its_best_moves(side, ties):
    agent = player(TICTACTOE, ties=ties)
    generator = np.random.default_rng(side)
    state = agent.game.start(200)
    for ply in range(9):
        decision = agent.act(step_at(agent.game, state), explore=False)
        live = ~agent.game.over(state)
        rows = np.flatnonzero(live)
        assert best_moves(agent)(state)[rows, decision.action[rows]].all()
        other = random_legal(agent.game.action_mask(state), generator)
        state = agent.game.play(state, decision.action if ply % 2 == side else other)
    assert agent.game.score(state)[:, side].min() >= 0


def test_ties_are_broken_as_told():
    start = step_at(tictactoe.Config().rules(), tictactoe.Config().rules().start(200))
    assert len({*player(TICTACTOE).act(start).action.tolist()}) == 9
    assert {*player(TICTACTOE, ties="first").act(start).action.tolist()} == {0}


def test_notes_tell_the_result_and_mark_illegal_moves():
    agent = player(TICTACTOE)
    state = agent.game.start(1)
    for move in (0, 1, 4):  # 8 wins for the first player, who has two ways by then
        state = agent.game.play(state, np.array([move]))
    notes = agent.act(step_at(agent.game, state)).notes
    assert notes["value"].tolist() == [-1]
    assert (notes["q_values"][0, [0, 1, 4]] == -9).all()
    assert notes["q_values"].argmax() == 8  # it loses anyway, but not at once


def test_it_wins_connect_four_as_soon_as_it_can_and_loses_as_late():
    agent = player(connect_four.Config())
    generator, game = np.random.default_rng(0), agent.game
    state = game.start(120)
    for _ in range(26):
        state = game.play(state, random_legal(game.action_mask(state), generator))
    state = state[~game.over(state)]
    worth = np.nanmax(game.solve(state), 1) * np.where(game.player(state) == 0, 1, -1)
    while not game.over(state).all():
        action = agent.act(step_at(game, state)).action
        state = game.play(state, action)
    num_stones = game.observe(state).sum((1, 2, 3))
    assert (game.score(state)[:, 0] == np.sign(worth)).all()
    assert (np.abs(worth) == np.where(worth != 0, (44 - num_stones) // 2, 0)).all()
    assert len({*worth.tolist()}) > 5


@pytest.mark.parametrize("config", [gomoku.Config(), othello.Config(), gridworld.Config()])
def test_world_that_cannot_be_solved_is_a_mistake(config):
    with pytest.raises(Mistake, match=r"tictactoe, connect_four and othello with env\.size=4"):
        player(config)
