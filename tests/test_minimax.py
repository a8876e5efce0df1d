"""Alpha-beta finds what plain minimax finds, in every game, and looks at far fewer boards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agents import minimax, uniform
from envs import bandit, breakthrough, connect_four, gomoku, hex, othello, tictactoe
from rlplay.core import Agent, Array, Game, Mistake, Spec, Step
from rlplay.evaluate import random_legal
from rlplay.game import GameEnv, step_at
from rlplay.match import Config, match

GAMES: dict[str, Any] = {
    "tictactoe": tictactoe.Config(),
    "connect_four": connect_four.Config(),
    "othello": othello.Config(size=4),
    "gomoku": gomoku.Config(size=4, line=3),
    "hex": hex.Config(size=3),
    "breakthrough": breakthrough.Config(size=5),
}


class Nim:
    """Two take one, two or three of a few stones; who takes two goes on. The last one wins."""

    name, num_actions, num_players, max_moves = "nim", 3, 2, 12
    dtype = np.dtype([("stones", np.int64), ("player", np.int64)])

    def play(self, state: Array, action: Array) -> Array:
        assert (action < state["stones"]).all()
        following = state.copy()
        following["stones"] -= action + 1
        following["player"] = np.where(action == 1, state["player"], 1 - state["player"])
        return following

    def action_mask(self, state: Array) -> Array:
        return np.arange(3) < state["stones"][:, None]

    def player(self, state: Array) -> Array:
        return state["player"]

    def over(self, state: Array) -> Array:
        return state["stones"] == 0

    def score(self, state: Array) -> Array:
        """Who took two last has still the move."""
        won = np.where(state["player"] == 0, 1, -1)
        return np.stack([won, -won], 1) * self.over(state)[:, None]


def boards(game: Game, num_boards: int, seed: int = 0, least: int = 0, most: int = 8) -> Array:
    """Return boards after so many random moves, none of them finished, [N]."""
    generator, found = np.random.default_rng(seed), game.start(0)
    while len(found) < num_boards:
        state = game.start(num_boards)
        for _ in range(generator.integers(least, most + 1)):
            state = game.play(state, random_legal(game.action_mask(state), generator))
        found = np.concatenate([found, state[~game.over(state)][:4]])
    return found[:num_boards]


def player(game: Any, seed: int = 0, **settings: Any) -> minimax.Minimax:
    space: Any = None
    spec = Spec(1, space, space, num_players=2, model=game)
    return minimax.Config(**settings).make(spec, seed)


def plain(game: Any, state: Array, depth: int) -> tuple[float, list[int]]:
    """Return the value of one board [1] by the book, and all moves that are worth it."""
    mover, worth = int(game.player(state)[0]), {}
    for move in np.flatnonzero(game.action_mask(state)[0]):
        following = game.play(state, np.array([move]))
        same = int(game.player(following)[0]) == mover
        if game.over(following)[0]:
            worth[int(move)] = depth * float(game.score(following)[0, mover])
        elif depth == 1:
            look = float(game.heuristic(following)[0]) if hasattr(game, "heuristic") else 0.0
            worth[int(move)] = look if same else -look
        else:
            value, _ = plain(game, following, depth - 1)
            worth[int(move)] = value if same else -value
    best = max(worth.values())
    return best, [move for move, value in worth.items() if value == best]


@pytest.mark.parametrize("ties", ["random", "first"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("name", GAMES)
def test_it_finds_what_plain_minimax_finds(name, depth, ties):
    game = GAMES[name].rules()
    state = boards(game, 4 if depth == 3 else 12, seed=depth)
    window = np.full(len(state), np.inf, np.float32)
    agent, shuffle = player(game, depth=depth), np.random.default_rng(0)
    value, action = agent.search(
        state, depth, -window, window, shuffle if ties == "random" else None
    )
    for i in range(len(state)):
        truth, moves = plain(game, state[i : i + 1], depth)
        assert value[i] == pytest.approx(truth)
        assert action[i] in moves


def test_players_who_move_twice_in_a_row_keep_their_side():
    game = Nim()
    state = np.zeros(22, game.dtype)
    state["stones"], state["player"] = np.arange(22) // 2 + 1, np.arange(22) % 2
    for depth in (1, 2, 3, 4, 5):
        decision = player(game, depth=depth).act(Step.at(state, 3, state=state))
        for i in range(len(state)):
            truth, moves = plain(game, state[i : i + 1], depth)
            assert decision.notes["value"][i] == np.clip(truth, -1, 1)
            assert decision.action[i] in moves


def test_small_games_are_played_out():
    game = tictactoe.Config().rules()
    agent = player(game, depth=9)
    for i, board in enumerate(state := boards(game, 30)):
        value = agent.act(step_at(game, state[i : i + 1])).notes["value"]
        assert value == [np.sign(np.nanmax(game.solve(board.reshape(1))))]


def test_wins_are_quick_and_losses_slow():
    game = connect_four.Config().rules()
    state = boards(game, 400, least=18, most=30)
    values, best = game.solve(state), np.nanmax(game.solve(state), 1)
    num_stones = game.observe(state).sum((1, 2, 3))
    ahead = np.where(best > 0, 1, 2)
    plies = 2 * ((44 - ahead - num_stones) // 2 - np.abs(best)) + ahead
    near = (best != 0) & (plies <= 5)
    assert (best[near] > 0).sum() > 20
    assert (best[near] < 0).sum() > 5
    decision = player(game, depth=6).act(step_at(game, state[near]))
    assert (values[near, decision.action] == best[near]).all()
    assert (decision.notes["value"] == np.sign(best[near])).all()
    blind = player(game, depth=1).act(step_at(game, state[near]))
    assert (values[near, blind.action] != best[near]).any()


class Counted(connect_four.ConnectFour):
    num_played = 0

    def play(self, state: Array, action: Array) -> Array:
        self.num_played += len(state)
        return super().play(state, action)


def test_it_prunes():
    game = Counted()
    state = boards(game, 40)
    game.num_played = 0
    player(game, depth=5).act(step_at(game, state))
    assert game.num_played < 40 * 7**5 / 12


def test_many_boards_are_played_like_each_alone():
    for name in ("connect_four", "othello"):
        game = GAMES[name].rules()
        agent, state = player(game, depth=3, ties="first"), boards(game, 30)
        together = agent.act(step_at(game, state))
        for i in range(30):
            alone = agent.act(step_at(game, state[i : i + 1]))
            assert alone.action == together.action[i]
            assert alone.notes["value"] == together.notes["value"][i]


def test_ties_are_broken_as_told():
    game = hex.Config(size=5).rules()
    start = step_at(game, game.start(200))
    assert len({*player(game, depth=2).act(start).action.tolist()}) > 15
    assert {*player(game, depth=2, ties="first").act(start).action.tolist()} == {0}


def test_finished_boards_are_passed_over():
    game = tictactoe.Config().rules()
    state = game.start(2)
    for move in (0, 3, 1, 4, 2):
        state = game.play(state, np.array([move, move]))
    live = game.start(1)
    decision = player(game).act(step_at(game, np.concatenate([state, live])))
    assert decision.action[:2].tolist() == [0, 0]
    assert decision.notes["value"].tolist() == [0, 0, 0]
    player(game).act(step_at(game, state))


def wins(game: Game, one: Agent, two: Agent, num_games: int = 60) -> float:
    return match(game, one, two, Config(num_games=num_games)).scores.mean()


@pytest.mark.parametrize(("name", "depth"), [("connect_four", 4), ("othello", 3), ("gomoku", 2)])
def test_deeper_beats_shallower_and_shallow_beats_random(name, depth):
    config = {"othello": othello.Config(), "gomoku": gomoku.Config(size=7)}.get(name, GAMES[name])
    game = config.rules()
    random = uniform.Config().make(GameEnv(game, 1).spec, 0)
    shallow, deep = player(game, 1, depth=1), player(game, 2, depth=depth)
    assert wins(game, shallow, random) > 0.8
    assert wins(game, deep, shallow) > 0.6


def test_world_that_is_no_game_is_a_mistake():
    with pytest.raises(Mistake, match="games for two"):
        minimax.Config().make(bandit.Config().make().spec, 0)


def test_connect_four_counts_open_lines():
    game = connect_four.Config().rules()
    assert_heuristic(game, 4, [0, 1, 2, 11, 4], 32)


@pytest.mark.parametrize(("size", "line"), [(9, 5), (6, 4), (3, 3), (15, 5)])
def test_gomoku_counts_open_lines(size, line):
    game = gomoku.Config(size=size, line=line).rules()
    assert_heuristic(game, line, [0, 1, 5, 21, 85, 85], 100)


def assert_heuristic(game: Any, length: int, counts: list[int], scale: int) -> None:
    """Assert that every line of a player alone counts as its number of stones says."""
    state = boards(game, 60, most=30)
    planes = game.observe(state)
    _, height, width = game.observation_shape
    lead = np.zeros(len(state))
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for row, column in np.ndindex(height, width):
            cells = [(row + k * down, column + k * right) for k in range(length)]
            if all(0 <= r < height and 0 <= c < width for r, c in cells):
                own, other = np.stack([planes[:, :, r, c] for r, c in cells]).sum(0).T.astype(int)
                lead += np.where(other == 0, np.take(counts, own), 0)
                lead -= np.where(own == 0, np.take(counts, other), 0)
    found = game.heuristic(state)
    assert np.abs(found).max() < 1
    assert len(np.unique(lead)) > 3
    np.testing.assert_allclose(found, lead / (scale + np.abs(lead)), atol=1e-6)


def test_othello_counts_moves_corners_and_stones():
    game = othello.Config(size=6).rules()
    state = boards(game, 60, most=28)
    swapped = state.copy()
    swapped["player"] = 1 - state["player"]
    planes, corners = game.observe(state), np.ix_([0, 5], [0, 5])
    lead = 0.1 * (planes[:, 0] - planes[:, 1]).sum((1, 2))
    lead += 5 * (planes[:, 0] - planes[:, 1])[:, *corners].sum((1, 2))
    lead += game.action_mask(state)[:, :-1].sum(1)
    for i, board in enumerate(state):
        own, other = board["stones"][board["player"]], board["stones"][1 - board["player"]]
        lead[i] -= int(othello.placements(other, own, 6)).bit_count()
    np.testing.assert_allclose(game.heuristic(state), lead / (10 + np.abs(lead)), atol=1e-6)
