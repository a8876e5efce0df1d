"""Laws of rlplay/match.py: fair pairs, honest intervals, and Elo that means what it says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from envs import connect_four, othello, tictactoe
from rlplay import config, match
from rlplay.core import Agent, Decision, Mistake, Step
from rlplay.match import Config, Match, bradley_terry, elo, ratings


class First(Agent):
    """Always plays the first legal move."""

    def act(self, step: Step, explore: bool = True) -> Decision:
        return Decision(step.action_mask.argmax(1), {})


class Last(Agent):
    def act(self, step: Step, explore: bool = True) -> Decision:
        last = step.action_mask.shape[1] - 1 - step.action_mask[:, ::-1].argmax(1)
        return Decision(last, {})


def uniform(game, seed: int = 0) -> Agent:
    spec = {"tictactoe": tictactoe, "connect_four": connect_four}[game.name].Config().make().spec
    return config.player("uniform").make(spec, seed)


def test_both_games_of_a_pair_begin_alike_with_colours_swapped():
    game = connect_four.Config().rules()
    found = match.match(game, First(), Last(), Config(num_games=20, random_opening=4))
    assert found.scores.shape == (20,)
    assert found.first.tolist() == [0, 1] * 10
    pairs = found.actions[:, :4].reshape(10, 2, 4)
    assert (pairs[:, 0] == pairs[:, 1]).all()
    assert len({tuple(opening) for opening in pairs[:, 0].tolist()}) > 5


def test_games_are_played_by_the_rules_and_by_whose_turn_it_is():
    game = othello.Config(size=4).rules()  # with passes
    found = match.match(game, First(), Last(), Config(num_games=12))
    for g in range(12):
        state = game.start(1)
        for t, action in enumerate(found.actions[g]):
            if action < 0:
                break
            legal = np.flatnonzero(game.action_mask(state)[0])
            if t >= 2:
                is_first = game.player(state)[0] == found.first[g]
                assert action == (legal[0] if is_first else legal[-1])
            state = game.play(state, np.array([action]))
        assert game.over(state)[0]
        assert 2 * found.scores[g] - 1 == game.score(state)[0, found.first[g]]


def test_same_seed_is_the_same_match_and_another_is_not():
    game = connect_four.Config().rules()
    one, two, other = (
        match.match(game, uniform(game), uniform(game, 1), Config(num_games=20, seed=seed))
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one.actions, two.actions)
    assert not np.array_equal(one.actions[:, :2], other.actions[:, :2])


def test_swapping_the_agents_mirrors_the_score():
    game = connect_four.Config().rules()
    one = match.match(game, First(), Last(), Config(num_games=40))
    two = match.match(game, Last(), First(), Config(num_games=40))
    assert one.scores.mean() == pytest.approx(1 - two.scores.mean())


def test_an_agent_against_itself_has_half_of_the_points_of_every_pair():
    game = connect_four.Config().rules()
    found = match.match(game, First(), First(), Config(num_games=40))
    assert (found.scores.reshape(-1, 2).mean(1) == 0.5).all()
    assert found.summary()["elo"] == 0


def test_illegal_move_of_an_agent_is_one_sentence():
    class Rude(Agent):
        def act(self, step: Step, explore: bool = True) -> Decision:
            return Decision((~step.action_mask).argmax(1), {})

    game = tictactoe.Config().rules()
    with pytest.raises(Mistake, match="Rude played the illegal move"):
        match.match(game, Rude(), First(), Config(num_games=2, random_opening=1))


def test_opening_longer_than_the_game_is_one_sentence():
    game = tictactoe.Config().rules()
    with pytest.raises(Mistake, match="hardly ever lasts 9 random moves"):
        match.match(game, First(), Last(), Config(num_games=2, random_opening=9))


def test_openings_never_end_the_game():
    game = tictactoe.Config().rules()
    found = match.match(game, First(), Last(), Config(num_games=200, random_opening=6))
    assert ((found.actions >= 0).sum(1) > 6).all()


def test_elo_of_ten_to_one_is_400_points():
    assert elo(10 / 11, 10**9) == pytest.approx(400, abs=1e-3)
    assert elo(0.5, 10) == 0
    assert elo(0.2, 100) == pytest.approx(-elo(0.8, 100))
    assert np.isfinite(elo(1.0, 200))


def test_interval_of_the_score_covers_the_truth_as_often_as_it_says():
    random, covered = np.random.default_rng(0), 0
    for _ in range(100):
        scores = (random.random(200) < 0.7).astype(float)
        found = Match(scores, np.tile([0, 1], 100), np.zeros((200, 1), int), 0).summary()
        covered += found["ci_low"] <= 0.7 <= found["ci_high"]
    assert 88 <= covered <= 100


def test_ratings_find_the_strengths_that_made_the_games():
    random = np.random.default_rng(0)
    truth = {"a": 0.0, "b": 150.0, "c": -100.0, "d": 400.0}
    results = {}
    for one, two in itertools.combinations(truth, 2):
        chance = 1 / (1 + 10 ** ((truth[two] - truth[one]) / 400))
        scores = (random.random(2000) < chance).astype(float)
        results[one, two] = Match(scores, np.tile([0, 1], 1000), np.zeros((2000, 1), int), 0)
    found = ratings(list(truth), results, "a")
    assert found["a"] == (0, 0, 0)
    for name, (rating, low, high) in found.items():
        assert rating == pytest.approx(truth[name], abs=30)
        assert low <= rating <= high
    # Negative control: with two names exchanged, they are not those.
    results["a", "d"] = Match(
        1 - results["a", "d"].scores, *list(vars(results["a", "d"]).values())[1:]
    )
    assert ratings(list(truth), results, "a")["d"][0] < 300


def test_bradley_terry_is_where_expected_points_are_those_won():
    won = np.array([[0, 7, 3], [3, 0, 6], [2, 4, 0.0]])
    strength = 10 ** (bradley_terry(won) / 400)
    chance = strength[:, None] / (strength[:, None] + strength)
    expected = ((won + won.T) * chance).sum(1)
    assert expected == pytest.approx(won.sum(1), abs=1e-6)


def test_match_is_kept_as_a_record(tmp_path):
    game = tictactoe.Config().rules()
    found = match.match(game, First(), Last(), Config(num_games=4))
    path = match.save(found, ["a@best", "mcts:num_simulations=10"], game, tmp_path / "matches")
    with np.load(path, allow_pickle=False) as kept:
        assert str(kept["game"]) == "tictactoe"
        assert np.array_equal(kept["actions"], found.actions)
        assert np.array_equal(kept["scores"], found.scores)
