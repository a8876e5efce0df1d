"""Rules as an env: what the boards show, how games begin, end and are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from agents.uniform import Config as Uniform
from envs.breakthrough import Config as Breakthrough
from envs.connect_four import Config as ConnectFour
from envs.gomoku import Config as Gomoku
from envs.hex import Config as Hex
from envs.othello import Config as Othello
from envs.tictactoe import Config as TicTacToe
from rlplay.core import Mistake
from rlplay.game import (
    NOBODY,
    GameEnv,
    cell_names,
    picture,
    scores,
    square_symmetries,
    text_board,
    with_others,
)
from rlplay.play import play

FIRST_WINS = (0, 3, 1, 4, 2)  # cells of tic-tac-toe


def one_after_the_other(actions, num_envs=1):
    """Return a tic-tac-toe env and all that it shows while these actions are taken everywhere."""
    env = TicTacToe(num_envs=num_envs).make()
    steps = [env.reset(0)]
    steps += [env.step(np.full(num_envs, action)) for action in actions]
    return env, steps


def test_players_take_turns_and_see_the_board_from_their_own_side():
    _, steps = one_after_the_other(FIRST_WINS)
    assert [int(step.player[0]) for step in steps[:-1]] == [0, 1, 0, 1, 0]
    first, second = steps[1].observation[0].astype(int).tolist(), steps[2].observation[0]
    assert first == [[[0] * 3] * 3, [[1, 0, 0], [0] * 3, [0] * 3]]  # to her, that is the other's
    assert second[0, 0, 0] == second[1, 1, 0] == 1


def test_reward_is_by_player_and_comes_with_the_last_move():
    _, steps = one_after_the_other(FIRST_WINS, num_envs=3)
    assert not any(step.reward.any() or step.done.any() for step in steps[:-1])
    assert steps[-1].reward.tolist() == [[1, -1]] * 3
    assert steps[-1].score.tolist() == [[1, -1]] * 3
    assert steps[-1].terminated.all()
    assert not steps[-1].discount.any()
    assert steps[-1].action_mask.all()


def test_new_game_begins_after_the_last_move_and_not_with_one():
    env, steps = one_after_the_other((*FIRST_WINS, 5))
    assert not steps[-1].observation.any()
    assert not steps[-1].done.any()
    assert steps[-1].player[0] == 0
    assert (env.boards == env.game.start(1)).all()


def test_steps_carry_boards_of_their_own():
    env, steps = one_after_the_other(FIRST_WINS)
    for step, following, action in zip(steps, steps[1:], FIRST_WINS, strict=False):
        assert (env.game.play(step.state, np.array([action])) == following.state).all()
    steps[-1].state["over"] = False
    assert env.boards["over"].all()


def test_illegal_action_names_the_move_and_the_board_and_changes_nothing():
    env = TicTacToe(num_envs=3).make()
    env.reset(0)
    env.step(np.array([0, 4, 8]))
    before = env.boards.copy()
    with pytest.raises(ValueError, match=r"(?s)4 \(b2\) is not on board 1 of tictactoe.*2 \. X \."):
        env.step(np.array([4, 4, 4]))
    assert (env.boards == before).all()


@pytest.mark.parametrize("config", [TicTacToe, ConnectFour, Othello])
def test_random_openings_are_of_all_lengths_asked_differ_and_end_no_game(config):
    env = config(num_envs=64, random_opening=6).make()
    step, starts = env.reset(0), []
    agent = np.random.default_rng(1)
    fresh = np.ones(64, bool)
    for _ in range(150):
        starts.append(step.state[fresh])
        assert not step.done[fresh].any()
        fresh = step.done
        keys = np.where(step.action_mask, agent.random(step.action_mask.shape), -1)
        step = env.step(keys.argmax(1))
    starts = np.concatenate(starts)
    stones = np.bitwise_count(starts["stones"]).sum(1)
    lengths = np.bincount(stones - np.bitwise_count(env.game.start(1)["stones"]).sum())
    assert len(lengths) == 7
    assert (lengths > 0.07 * len(starts)).all()
    assert len(starts) > 100
    assert len(np.unique(starts["stones"], axis=0)) > 30


def test_openings_follow_the_seed_and_go_on_differently():
    env = ConnectFour(num_envs=8, random_opening=4).make()
    one, other, again = env.reset(0), env.reset(1), env.reset(0)
    assert (one.state == again.state).all()
    assert (one.state != other.state).any()


def test_opening_that_no_game_survives_is_refused():
    env = GameEnv(TicTacToe().rules(), 64, random_opening=9)
    with pytest.raises(Mistake, match=r"set env\.random_opening lower"):
        env.reset(0)


def test_world_of_other_boards_is_not_taken_over():
    saved = Othello(num_envs=2).make()
    saved.reset(0)
    for config, message in [
        (Othello(num_envs=3), r"set env\.num_envs=2"),
        (ConnectFour(num_envs=2), "saved in othello-8x8, which is not connect_four"),
        (Othello(num_envs=2, size=6), "saved in othello-8x8, which is not othello-6x6"),
    ]:
        env = config.make()
        env.reset(0)
        with pytest.raises(Mistake, match=message):
            env.load_state_dict(saved.state_dict())


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (Gomoku(size=9), Gomoku(size=15)),
        (Gomoku(size=9), Gomoku(size=9, line=4)),
        (Hex(size=7), Hex(size=9)),
        (Breakthrough(size=6), Breakthrough(size=8)),
        (Othello(size=6), Othello(size=8)),
    ],
)
def test_boards_of_another_size_are_not_taken_for_ours_though_they_look_alike(small, large):
    saved, env = small.make(), large.make()
    saved.reset(0)
    env.reset(0)
    before = env.boards.copy()
    assert saved.boards.dtype == before.dtype  # so that their bytes tell nothing
    with pytest.raises(Mistake, match=f"saved in {small.world}, which is not {large.world}"):
        env.load_state_dict(saved.state_dict())
    assert (env.boards == before).all()
    saved.load_state_dict(saved.state_dict())


def test_boards_of_an_older_kind_are_refused():
    env = TicTacToe(num_envs=2).make()
    env.reset(0)
    state = {**env.state_dict(), "boards": np.zeros(2, np.uint64)}
    with pytest.raises(Mistake, match="older tictactoe"):
        env.load_state_dict(state)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_game_that_is_over_is_never_lost_and_never_played_on(num_envs):
    env, steps = one_after_the_other(FIRST_WINS, num_envs)
    boards = steps[-1].state
    assert (env.game.play(boards, np.full(num_envs, 99)) == boards).all()
    for action in (-1, 9):  # an env takes no action that is none, not even one that it ignores
        with pytest.raises(ValueError, match=r"in 0\.\.8"):
            env.step(np.full(num_envs, action))
        assert (env.boards == boards).all()
    assert not env.step(np.zeros(num_envs, np.int64)).done.any()


def test_env_that_was_not_begun_or_made_to_be_drawn_says_so():
    env = TicTacToe().make()
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(1, np.int64))
    env.reset(0)
    with pytest.raises(RuntimeError, match="render=True"):
        env.render()


def test_picture_marks_the_last_move_until_a_new_game_begins():
    env = TicTacToe().make(render=True)
    env.reset(0)
    empty = env.render()
    for action in FIRST_WINS:
        env.step(np.array([action]))
        assert (env.render() == env.game.draw(env.boards, action)).all()
        assert (env.render() != env.game.draw(env.boards)).any()
    env.step(np.array([0]))
    assert (env.render() == empty).all()


def test_scores_are_by_player_and_sum_to_nothing():
    table = scores(np.array([0, 1, NOBODY], np.int8))
    assert table.tolist() == [[1, -1], [-1, 1], [0, 0]]
    assert table.dtype == np.float32


def test_square_has_eight_symmetries_that_leave_other_actions_alone():
    board, action = square_symmetries(3, num_others=2)
    assert board.shape == (8, 9)
    assert len(np.unique(board, axis=0)) == 8
    assert (action[:, :9] == board).all()
    assert (action[:, 9:] == [9, 10]).all()
    assert (board[0] == np.arange(9)).all()
    assert (np.sort(board[:, [0, 2, 6, 8]], 1) == [0, 2, 6, 8]).all()  # corners stay corners
    assert (with_others(board).action_symmetries == board).all()


def test_text_of_a_board_has_its_names_in_line():
    cells = np.full((10, 2), NOBODY)
    cells[0, 1], cells[9, 0] = 0, 1
    lines = text_board(cells).splitlines()
    assert lines[0] == "   a b"
    assert lines[1] == " 1 . X"
    assert lines[10] == "10 O ."
    assert cell_names(10, 2)[-1] == "b10"


@pytest.mark.parametrize("shape", [(3, 3), (6, 7), (7, 7), (9, 9), (15, 15), (19, 19), (1, 5)])
def test_pictures_have_even_sides(shape):
    cells = np.full(shape, NOBODY)
    drawn = picture(cells)
    assert drawn.dtype == np.uint8
    assert not any(side % 2 for side in drawn.shape[:2])
    cells[-1, -1] = 1
    assert (picture(cells) != drawn).any()
    assert (picture(cells, cells.size - 1) != picture(cells)).any()


def test_uniform_agent_plays_both_sides():
    env = ConnectFour(num_envs=16).make()
    agent = Uniform().make(env.spec, 0)
    ended = np.zeros(2)
    for _, moment in zip(range(200), play(env, agent, env.reset(0)), strict=False):
        ended += (moment.following.reward == 1).sum(0)
    assert (ended > 20).all()
