"""Laws of rlplay/match.py: fair pairs, honest intervals, and Elo that means what it says."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from envs import connect_four, othello, tictactoe
from rlplay import config, match
from rlplay.__main__ import VERBS, run_verb
from rlplay.core import Agent, Decision, Mistake, NonFinite, Step
from rlplay.match import Config, Match, bradley_terry, elo, ratings
from rlplay.train import Training, score, sentence


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


@pytest.mark.parametrize("number", [-1, 9, 10**9])
def test_move_that_is_none_is_one_sentence(number):
    class Lost(Agent):
        def act(self, step: Step, explore: bool = True) -> Decision:
            return Decision(np.full(len(step.action_mask), number), {})

    game = tictactoe.Config().rules()
    with pytest.raises(Mistake, match=f"Lost played the illegal move {number} of tictactoe"):
        match.match(game, First(), Lost(), Config(num_games=2))


@pytest.mark.parametrize(("asked", "played"), [(1, 2), (2, 2), (7, 8)])
def test_odd_number_of_games_is_made_even(asked, played):
    found = match.match(tictactoe.Config().rules(), First(), Last(), Config(num_games=asked))
    assert len(found.scores) == played
    assert found.summary()["games"] == played


def test_who_has_won_all_games_is_not_sure_to_win_all():
    for num_games in (2, 40, 200):
        won = Match(np.ones(num_games), np.arange(num_games) % 2, np.zeros((num_games, 1), int), 0)
        numbers = won.summary()
        # Clopper and Pearson (1934), of n pairs that were all won: 0.025 to the power of 1 / n.
        assert numbers["ci_low"] == pytest.approx(0.025 ** (2 / num_games), abs=0.05)
        assert numbers["ci_high"] == numbers["score"] == 1
        assert numbers["elo_low"] < numbers["elo"] == numbers["elo_high"]
        assert ratings(["a", "b"], {("a", "b"): won}, "b")["a"][1] < numbers["elo"]


@pytest.mark.parametrize(
    ("names", "world", "hint"),
    [
        (["minmax"], "tictactoe", "did you mean 'minimax'"),
        (["nobody"], "tictactoe", "`rlplay list agents` names the agents"),
        (["uniform"], "", "name the game"),
        (["uniform"], "gridworld", "a game for two"),
        (["uniform"], "pettingzoo", "a game for two"),
        (["mcts:num_simulations=0"], "tictactoe", "in 'mcts:num_simulations=0', num_simulations"),
        (["mcts:speed=1"], "tictactoe", "the mcts agent has no setting 'speed'"),
        (["uniform"], "gomoku:siz=9", "the gomoku env has no setting 'siz'; did you mean 'size'"),
        (["perfect"], "gomoku", "perfect plays games that can be solved"),
    ],
)
def test_players_who_are_none_are_refused_with_what_to_type(names, world, hint, tmp_path):
    with pytest.raises(Mistake, match=hint):
        match.seats(names, world, tmp_path)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--evaluation.opponent", "nobody"], "no agent called 'nobody'"),
        (["--evaluation.opponent", "mcts:num_simulations=0"], "must be a whole number"),
        (["--env.name", "othello", "--evaluation.opponent", "perfect"], "can be solved"),
        (["--evaluation.random-opening", "9"], "hardly ever lasts 9 random moves"),
        (["--env.name", "pettingzoo"], "add --evaluation.num-episodes 0"),
    ],
)
def test_opponent_that_cannot_play_is_refused_before_the_training(words, hint):
    settings = ["--agent.name", "uniform", *words]
    with pytest.raises(Mistake, match=hint):
        Training(config.load("tictactoe/alphazero", settings), print)


def test_evaluation_names_its_opponent_and_plays_pairs_and_lets_the_hand_slip():
    found = {}
    for slips in (0, 1):
        settings = f"--agent.name perfect --evaluation.num-episodes 99 --evaluation.epsilon {slips}"
        experiment = config.load("tictactoe/alphazero", settings.split())
        agent = experiment.agent.make(experiment.env.make().spec, 0)
        found[slips] = score(experiment, agent)
    assert sentence(found[0]).startswith("evaluated 100 games against perfect: mean")
    assert found[0].scores.mean() > found[1].scores.mean() + 0.2


def test_network_that_says_no_numbers_is_one_sentence(monkeypatch, capsys):
    def broken(words: list[str], root: Path) -> int:
        raise NonFinite("the network returned what is not numbers", {})

    monkeypatch.setitem(VERBS, "match", broken)
    assert run_verb(["match", "a", "b"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_number_of_games_is_typed_as_games(tmp_path, capsys):
    words = ["match", "minimax", "uniform", "--game", "tictactoe", "--runs", str(tmp_path)]
    assert run_verb([*words, "--games", "6"]) == 0
    assert "tictactoe, 6 games" in capsys.readouterr().out
    assert run_verb([*words, "--games", "0"]) == 2
    assert "--num-games must be a whole number of at least 1" in capsys.readouterr().err


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
