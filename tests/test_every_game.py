"""The laws that every game keeps: each file in envs/ whose Config has `rules`, by discovery.

tests/games/ holds a whole game of each as text, to be read. `python tests/test_every_game.py`
writes those that are missing; after a change of the text, delete them first, and read the
difference.
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from rlplay import config
from rlplay.core import Array, Game
from rlplay.game import GameEnv

FOLDER = Path(__file__).parent / "games"
SMALL = 64  # cells of a board that is printed after every move, larger ones after every tenth
NUM_GAMES = 24  # side by side


def names() -> list[str]:
    """Return the envs that are games."""
    return [n for n in config.names("envs") if hasattr(config.plugin("envs", n).Config, "rules")]


def games() -> dict[str, Game]:
    """Return every game by its name, as it is by default and, where it has a size, of size 6."""
    found = {}
    for name in names():
        default: Any = config.plugin("envs", name).Config()
        sizes = [{}, {"size": 6}] if hasattr(default, "size") else [{}]
        made = [dataclasses.replace(default, **size).rules() for size in sizes]
        found |= {game.name: game for game in made}
    return found


GAMES = games()
every_game = pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)


class Moment(NamedTuple):
    boards: Array  # [N]
    action: Array  # [N] int64, any number where the game is over


def choose(mask: Array, random: np.random.Generator) -> Array:
    """Return one legal action for each board, [N] int64."""
    return np.where(mask, random.random(mask.shape), -1).argmax(1)


def moments(game: Game, num_games: int = NUM_GAMES, seed: int = 0) -> list[Moment]:
    """Return all moments of random games side by side, until one after all of them are over."""
    random, boards, passed = np.random.default_rng(seed), game.start(num_games), []
    while True:
        passed.append(Moment(boards, choose(game.action_mask(boards), random)))
        if game.over(boards).all():
            return passed
        boards = game.play(boards, passed[-1].action)


@every_game
def test_promises_about_itself_are_kept(game):
    num_symmetries = len(game.symmetries.board_symmetries)
    planes, height, width = game.observation_shape
    assert game.num_players == 2
    assert planes >= 2
    assert len(game.action_names) == len(set(game.action_names)) == game.num_actions
    assert not game.dtype.hasobject
    assert game.symmetries.board_symmetries.shape == (num_symmetries, height * width)
    assert game.symmetries.action_symmetries.shape == (num_symmetries, game.num_actions)
    for n in (0, 1, 5):
        boards = game.start(n)
        mask, seen = game.action_mask(boards), game.observe(boards)
        assert (boards.shape, boards.dtype) == ((n,), game.dtype)
        assert (mask.shape, mask.dtype) == ((n, game.num_actions), bool)
        assert (seen.shape, seen.dtype) == ((n, *game.observation_shape), np.float32)
        for part, dtype in [(game.player, np.int64), (game.over, np.bool_)]:
            assert (part(boards).shape, part(boards).dtype) == ((n,), dtype)
        rolled = game.rollout(boards, np.random.default_rng(0))
        for score in (game.score(boards), rolled):
            assert (score.shape, score.dtype) == ((n, 2), np.float32)
        following = game.play(boards, choose(mask, np.random.default_rng(0)))
        assert (following.shape, following.dtype) == ((n,), game.dtype)


@every_game
def test_games_begin_alike_and_end_in_time_with_a_score(game):
    passed = moments(game)
    start = passed[0].boards
    assert (start == start[0]).all()
    assert not game.over(start).any()
    assert not game.player(start).any()
    assert 4 < len(passed) - 1 <= game.max_moves
    for boards, _ in passed:
        score, over = game.score(boards), game.over(boards)
        assert not score[~over].any()
        assert np.isin(score, [-1, 0, 1]).all()
        assert not score.sum(1).any()
        assert game.action_mask(boards).any(1).all()
        assert game.action_mask(boards)[over].all()
        assert np.isin(game.player(boards), [0, 1]).all()


@every_game
def test_observation_is_zeros_and_ones_that_every_move_changes(game):
    passed = moments(game)
    for (boards, _), (following, _) in pairwise(passed):
        seen, then = game.observe(boards), game.observe(following)
        assert np.isin(seen, [0, 1]).all()
        assert not (seen[:, 0] * seen[:, 1]).any(), "two stones on one cell"
        live = ~game.over(boards)
        assert (seen != then)[live].any((1, 2, 3)).all()
        assert (seen == then)[~live].all()


@every_game
def test_finished_board_stays_as_it_is_whatever_the_action(game):
    boards, _ = moments(game)[-1]
    for action in (0, game.num_actions - 1, -1, game.num_actions, 10**9):
        assert (game.play(boards, np.full(len(boards), action)) == boards).all()
    assert (game.rollout(boards, np.random.default_rng(0)) == game.score(boards)).all()


@every_game
def test_play_makes_new_boards_and_leaves_the_old_ones_alone(game):
    for boards, action in moments(game, 4):
        copy = boards.copy()
        following = game.play(boards, action)
        assert not np.shares_memory(boards, following)
        for part in (game.observe, game.action_mask, game.player, game.over, game.score):
            assert not np.shares_memory(part(boards), boards)
        game.rollout(boards, np.random.default_rng(0))
        assert (boards == copy).all()


@every_game
def test_mask_is_exactly_what_play_accepts(game):
    for boards, _ in moments(game, 2)[:12]:
        mask = game.action_mask(boards)
        for i, action in np.ndindex(mask.shape):
            if mask[i, action]:
                game.play(boards[i : i + 1], np.array([action]))
            else:
                name = rf"{action} \({game.action_names[action]}\) is not on board 0 of {game.name}"
                with pytest.raises(ValueError, match=name):
                    game.play(boards[i : i + 1], np.array([action]))


@every_game
def test_action_that_is_none_is_refused_on_the_first_board_where_it_is(game):
    boards = game.start(3)
    legal = int(game.action_mask(boards)[0].argmax())
    for wrong in (-1, game.num_actions, -(2**40), 2**40):
        with pytest.raises(ValueError, match=f"{wrong} is not on board 1 of {game.name}"):
            game.play(boards, np.array([legal, wrong, wrong]))
    with pytest.raises(ValueError, match="3 boards need as many actions"):
        game.play(boards, np.array([legal, legal]))


@every_game
def test_many_boards_are_that_many_single_boards(game):
    for boards, action in moments(game, 5):
        following = game.play(boards, action)
        for part in (game.observe, game.action_mask, game.player, game.over, game.score):
            whole = part(boards)
            for i in range(len(boards)):
                assert (part(boards[i : i + 1])[0] == whole[i]).all()
        for i in range(len(boards)):
            assert game.play(boards[i : i + 1], action[i : i + 1])[0] == following[i]


@every_game
def test_boards_need_not_lie_side_by_side_in_memory(game):
    boards, action = moments(game, 6)[3]
    apart = np.stack([boards, game.start(6)], 1)[:, 0]
    assert not apart.flags.c_contiguous
    assert (game.play(apart, action) == game.play(boards, action)).all()
    assert (game.observe(apart) == game.observe(boards)).all()
    assert (game.action_mask(apart) == game.action_mask(boards)).all()


@every_game
def test_symmetries_are_permutations_that_begin_with_the_identity_and_are_a_group(game):
    for table in game.symmetries:
        assert table.dtype == np.int64
        assert (np.sort(table, 1) == np.arange(table.shape[1])).all()
        assert (table[0] == np.arange(table.shape[1])).all()
    rows = {tuple(row) for row in np.concatenate(game.symmetries, 1)}
    assert len(rows) == len(game.symmetries.board_symmetries)
    both = zip(*game.symmetries, strict=True)
    for board, action in both:
        for board2, action2 in zip(*game.symmetries, strict=True):
            assert (*board[board2], *action[action2]) in rows


def turned(game: Game, k: int, inverse: Array, num_games: int) -> None:
    """Play games and beside them the same ones as symmetry k shows them, `inverse` [A] turning
    actions; assert that they stay the same."""
    board, action = (table[k] for table in game.symmetries)
    image = game.start(num_games)
    for boards, chosen in moments(game, num_games):
        seen = game.observe(boards).reshape(num_games, -1, len(board))[..., board]
        assert (seen == game.observe(image).reshape(seen.shape)).all()
        assert (game.action_mask(boards)[:, action] == game.action_mask(image)).all()
        assert (game.score(boards) == game.score(image)).all()
        assert (game.over(boards) == game.over(image)).all()
        assert (game.player(boards) == game.player(image)).all()
        image = game.play(image, inverse[chosen])


@every_game
def test_rules_are_the_same_seen_through_every_symmetry(game):
    """Of those that leave the first board as it is."""
    first = game.observe(game.start(1)).reshape(game.observation_shape[0], -1)
    tables = game.symmetries
    whole = [k for k, cells in enumerate(tables[0]) if (first[:, cells] == first).all()]
    for k in whole:
        turned(game, k, np.argsort(tables[1][k]), 8)
    if len(whole) > 1:  # Negative control: the actions are left as they are.
        with pytest.raises((AssertionError, ValueError)):
            turned(game, whole[1], np.arange(game.num_actions), 8)


@every_game
def test_rollouts_are_random_games(game):
    num_games = 2000
    counted = game.score(moments(game, num_games)[-1].boards)[:, 0]
    for skip in (0, 3):
        boards = moments(game, 1)[skip].boards.repeat(num_games)
        random = np.random.default_rng(1)
        if skip:
            played = boards
            while not game.over(played).all():
                played = game.play(played, choose(game.action_mask(played), random))
            counted = game.score(played)[:, 0]
        score = game.rollout(boards, random)
        assert (score[:, 0] == -score[:, 1]).all()
        for result in (-1, 0, 1):
            share, truth = (score[:, 0] == result).mean(), (counted == result).mean()
            assert abs(share - truth) < 4 * np.sqrt(0.5 / num_games)


@every_game
def test_rollouts_follow_the_generator(game):
    boards = game.start(200)
    one, same, other = (game.rollout(boards, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (one == same).all()
    assert (one != other).any()
    generator = np.random.default_rng(0)
    assert (game.rollout(boards, generator) != game.rollout(boards, generator)).any()


@every_game
def test_boards_are_saved_and_loaded_as_they_are(game, tmp_path):
    boards = np.stack([boards for boards, _ in moments(game, 3)])  # as a search tree keeps them
    np.save(tmp_path / "boards.npy", boards, allow_pickle=False)
    assert (np.load(tmp_path / "boards.npy", allow_pickle=False) == boards).all()


@every_game
def test_board_is_told_and_drawn_whole_or_as_one_of_many(game):
    (before, action), (boards, _) = moments(game, 1)[2:4]
    assert game.show(boards) == game.show(boards[0]) != game.show(before)
    assert len(game.show(boards).splitlines()) >= game.observation_shape[1] + 1
    picture = game.draw(boards)
    assert (picture == game.draw(boards[0])).all()
    assert (picture.dtype, picture.ndim, picture.shape[2]) == (np.uint8, 3, 3)
    assert not any(side % 2 for side in picture.shape[:2])
    assert game.draw(before).shape == picture.shape
    assert (game.draw(before) != picture).any()
    assert (game.draw(boards, int(action[0])) != picture).any(), "the last move is not marked"


@every_game
def test_rules_become_an_env(game):
    env = GameEnv(game, 2)
    assert env.spec.model is game
    assert env.spec.action_names == game.action_names
    assert (env.reset(0).state == game.start(2)).all()


@pytest.mark.parametrize("name", names())
def test_game_that_was_written_down_is_played_again(name):
    game = config.plugin("envs", name).Config().rules()
    text = (FOLDER / f"{name}.txt").read_text("utf-8")
    moves = text.splitlines()[1].removeprefix("moves: ").split()
    assert playthrough(game, [game.action_names.index(move) for move in moves]) == text


def playthrough(game: Game, actions: list[int]) -> str:
    """Return a game as text: each move, how many were legal, and the boards."""
    moves = " ".join(game.action_names[action] for action in actions)
    lines = [game.name, f"moves: {moves}", "", game.show(game.start(1)), ""]
    board = game.start(1)
    _, height, width = game.observation_shape
    for number, action in enumerate(actions, 1):
        mask, player = game.action_mask(board)[0], int(game.player(board)[0])
        legal = "all" if mask.all() else f"{mask.sum()}"
        board = game.play(board, np.array([action]))
        lines.append(f"{number}. {'XO'[player]} {game.action_names[action]} ({legal} legal)")
        if height * width <= SMALL or number % 10 == 0 or game.over(board)[0]:
            lines += [game.show(board), ""]
    score = [f"{points:g}" for points in game.score(board)[0]]
    return "\n".join([*lines, f"score: {' '.join(score)}", ""])


def write(name: str) -> None:
    """Write down a random game of an env's default settings."""
    game = config.plugin("envs", name).Config().rules()
    actions = [int(moment.action[0]) for moment in moments(game, 1, seed=15)[:-1]]
    (FOLDER / f"{name}.txt").write_text(playthrough(game, actions))


if __name__ == "__main__":
    for missing in names():
        if not (FOLDER / f"{missing}.txt").exists():
            write(missing)
