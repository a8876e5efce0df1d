"""Laws of envs/atari.py, among them one for each trap that ale-py sets."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode

from agents import reinforce
from envs.atari import Atari, Config, games
from rlplay.core import Array, Mistake, Step
from rlplay.nets import encoders
from rlplay.play import collect
from rlplay.play import play as moments

DIRECTIONS = ("up", "right", "left", "down", "upright", "upleft", "downright", "downleft")
EVERY_ACTION = ("noop", "fire", *DIRECTIONS, *(f"{direction}fire" for direction in DIRECTIONS))


def make(game: str = "pong", render: bool = False, **changes: Any) -> Atari:
    """Return one game that does as it is told, unless `changes` say otherwise."""
    settings = {"num_envs": 1, "sticky_actions": 0.0, "clip_rewards": False}
    return Config(game=game, **(settings | changes)).make(render=render)


def play(env: Atari, num_steps: int, seed: int = 0, action: int | None = None) -> list[Step]:
    """Play from a reset: random actions that are the same in all games, or one over and over."""
    random, n = np.random.default_rng(0), env.spec.num_envs
    steps = [env.reset(seed)]
    for _ in range(num_steps):
        chosen = random.integers(env.spec.num_actions) if action is None else action
        steps.append(env.step(np.full(n, chosen)))
    return steps


def column(steps: list[Step], name: str) -> Array:
    """Return one field of game 0 over time."""
    return np.array([getattr(step, name)[0] for step in steps])


def digest(steps: list[Step]) -> str:
    hashed = hashlib.sha256()
    for step in steps:
        for leaf in (step.observation, step.score, step.terminated, step.truncated):
            hashed.update(np.ascontiguousarray(leaf).tobytes())
    return hashed.hexdigest()


def output(script: str) -> str:
    """Run a script in a process of its own, which may hang or die, and return what it printed."""
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


# --- traps that end or hang the process --------------------------------------------------------


def test_action_out_of_range_raises_and_never_hangs():
    printed = output("""
import numpy as np
from envs.atari import Config

env = Config(game="pong", num_envs=2).make()
env.reset(0)
for bad in ([0, 6], [-1, 0], [0], [0, 0, 0], [[0, 0]], [0.0, 1.0], [True, False], 0, 10**12):
    try:
        env.step(np.array(bad))
    except ValueError:
        print("refused")
print(env.step(np.array([5, 0], np.uint8)).observation.shape)
print(env.step(np.array([5, 0])[::-1]).observation.shape)
""")
    assert printed.split("\n") == ["refused"] * 9 + ["(2, 4, 84, 84)"] * 2 + [""]


def test_game_that_ale_py_cannot_play_is_refused_before_its_rom_ends_the_process():
    unplayable = sorted(set(roms.get_all_rom_ids()) - set(games()))
    assert {"combat", "joust", "maze_craze", "warlords"} <= set(unplayable), "no trap is left"
    printed = output(f"""
from envs.atari import Config
from rlplay.core import Mistake

for game in {unplayable}:
    try:
        Config(game=game, num_envs=1).make()
    except Mistake as mistake:
        print(mistake)
print("alive")
""")
    assert printed.count("no Atari game called") == len(unplayable)
    assert printed.endswith("alive\n")


def test_unknown_game_gets_the_nearest_name():
    with pytest.raises(Mistake, match=r"no Atari game called 'pnog'; did you mean 'pong'"):
        make("pnog")


def test_missing_rom_says_how_to_mend_it(monkeypatch):
    monkeypatch.setattr(roms, "get_rom_path", lambda game: None)
    with pytest.raises(Mistake, match=r"ROM of pong is missing.*pip install"):
        make("pong")


def test_step_limit_too_long_for_the_emulators_counter_is_refused_or_works():
    longest = make(max_steps=10_000_000, frame_skip=60)
    assert longest.reset(0).observation.shape == (1, 4, 84, 84)


# --- lives -------------------------------------------------------------------------------------


def test_lost_life_ends_the_bootstrap_and_not_the_game():
    runs = []
    for episodic in (False, True):
        env = make("breakout", episodic_life=episodic)
        lives, steps = [5], [env.reset(0)]
        for _ in range(150):
            steps.append(env.step(np.array([1])))  # FIRE, and never moves
            lives.append(int(env.lives[0]))
        runs.append(steps)
    lost = [t for t in range(1, 151) if lives[t] < lives[t - 1]]
    over = lost[4]
    assert [lives[t] for t in lost[:5]] == [4, 3, 2, 1, 0]
    assert lives[over + 1] == 5, "the game did not start anew after its last life"

    off, on = runs
    assert np.flatnonzero(column(on, "discount") == 0).tolist() == lost
    assert np.flatnonzero(column(off, "discount") == 0).tolist() == [over]
    for steps in (on, off):
        assert np.flatnonzero(column(steps, "terminated")).tolist() == [over]
        assert not column(steps, "truncated").any()
    # The game itself does not know of the setting.
    assert digest(on) == digest(off)


# --- points ------------------------------------------------------------------------------------


def test_point_ends_the_bootstrap_and_not_the_game():
    on, off = (play(make(episodic_points=points), 200, action=0) for points in (True, False))
    scored = np.flatnonzero(column(on, "score"))
    assert len(scored) >= 3
    assert np.flatnonzero(column(on, "discount") == 0).tolist() == scored.tolist()
    assert (column(off, "discount") == 1).all()
    assert not column(on, "terminated").any()
    assert digest(on) == digest(off)


def test_reinforce_weighs_an_action_by_the_next_point_alone(monkeypatch):
    seen, weigh = [], reinforce.lambda_return

    def spy(*rollout: Any, trace: float) -> Any:
        seen.append(weigh(*rollout, trace=trace))
        return seen[-1]

    monkeypatch.setattr(reinforce, "lambda_return", spy)
    settings = {"baseline": False, "num_episodes": 1, "horizon": 150, "hidden": 0}
    agent_config = reinforce.Config(encoder=encoders.Config("mlp", (4,)), **settings)
    for points in (True, False):
        env = make(frame_size=80, num_stacked=2, episodic_points=points, max_steps=150)
        agent = agent_config.make(env.spec, 0)
        steps = collect(moments(env, agent, env.reset(0)), 150)
        assert "train/loss" in agent.learn(steps)
        reward = steps.step.reward[1:, 0, 0]
        assert np.count_nonzero(reward) >= 2
        expected, running = np.zeros(150), 0.0
        for t in range(149, -1, -1):  # as in Karpathy 2016: set back at each point
            running = reward[t] + 0.99 * (0.0 if reward[t] else running)
            expected[t] = running
        # Negative control: without the setting, later points count too.
        assert np.allclose(seen.pop()[:, 0], expected, atol=1e-5) == points


# --- seeds -------------------------------------------------------------------------------------


def test_seed_of_any_type_and_size_repeats_the_play():
    env = make(sticky_actions=0.25)
    for seed in (np.int64(0), np.uint8(3), np.int32(2**31 - 1), np.uint64(2**40)):
        assert digest(play(env, 30, seed)) == digest(play(env, 30, int(seed)))  # type: ignore


def test_other_seeds_are_other_games():
    env = make(sticky_actions=0.25)
    assert len({digest(play(env, 40, seed)) for seed in range(4)}) == 4


def test_same_seed_is_the_same_play_in_two_processes():
    script = """
import numpy as np
from envs.atari import Config
import hashlib

env = Config(game="breakout", num_envs=2, noop_max=30).make()
digest = hashlib.sha256(env.reset(0).observation.tobytes())
for t in range(120):
    digest.update(env.step(np.array([1, t % 4])).observation.tobytes())
print(digest.hexdigest())
"""
    first = output(script)
    assert first == output(script)
    assert first != output(script.replace("reset(0)", "reset(5)"))


def test_games_side_by_side_differ():
    last = play(make(num_envs=4, sticky_actions=0.25), 60)[-1].observation
    assert len(np.unique(last, axis=0)) == 4
    # Negative control: it is the seed that makes them differ, for without chance they are alike.
    last = play(make(num_envs=4), 60)[-1].observation
    assert len(np.unique(last, axis=0)) == 1


def test_game_does_not_depend_on_its_neighbours():
    alone = play(make(sticky_actions=0.25, noop_max=30), 60, seed=7)
    among = play(make(sticky_actions=0.25, noop_max=30, num_envs=3), 60, seed=7)
    for one, three in zip(alone, among, strict=True):
        assert np.array_equal(one.observation[0], three.observation[0])


def test_trainings_with_neighbouring_seeds_share_no_game():
    first, second = (
        play(make(sticky_actions=0.25, num_envs=2), 60, seed)[-1].observation for seed in (0, 1)
    )
    assert len(np.unique(np.concatenate([first, second]), axis=0)) == 4


# --- rewards -----------------------------------------------------------------------------------


def test_clipping_changes_the_reward_and_never_the_score():
    clipped = play(make("space_invaders", clip_rewards=True), 300)
    plain = play(make("space_invaders"), 300)
    score = column(plain, "score")
    assert score.max() > 1, "nothing to clip"
    assert score.dtype == np.float32
    assert np.array_equal(column(clipped, "score"), score)
    assert np.array_equal(column(plain, "reward"), score)
    assert np.array_equal(column(clipped, "reward"), np.sign(score))


def test_negative_points_keep_their_sign_when_clipped():
    reward = column(play(make("pong", clip_rewards=True), 150, action=0), "reward")
    assert reward.min() == -1


def test_evaluation_is_on_full_games_with_true_rewards():
    changes = {"episodic_life": True, "episodic_points": True, "clip_rewards": True}
    training = Config(game="space_invaders", num_envs=1, **changes)
    evaluation = training.for_evaluation()
    assert not evaluation.episodic_life
    assert not evaluation.episodic_points
    assert not evaluation.clip_rewards
    changes["max_steps"] = training.max_steps
    assert dataclasses.replace(evaluation, **changes) == training
    assert evaluation.max_steps > 1_000_000, "the protocol's own cap would not be the first"
    steps = play(evaluation.make(), 300)
    assert np.array_equal(column(steps, "reward"), column(steps, "score"))
    assert column(steps, "score").max() > 1


# --- episodes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"noop_max": 30}, {"frame_skip": 3, "fire_start": True}])
def test_game_is_cut_after_exactly_max_steps_and_flagged_as_cut(changes):
    steps = play(make("breakout", max_steps=7, num_envs=2, **changes), 24, action=0)
    for i in range(2):
        truncated = [bool(step.truncated[i]) for step in steps]
        assert np.flatnonzero(truncated).tolist() == [7, 15, 23]  # one step in between starts anew
        assert not any(step.terminated[i] for step in steps)
        assert all(step.discount[i] == 1 for step in steps)


def test_action_after_the_end_is_ignored_and_starts_a_new_game():
    def after(at_the_end: int, before: int = 2) -> list[Step]:
        env = make("breakout", max_steps=20, sticky_actions=0.25)
        env.reset(0)
        for t in range(20):
            end = env.step(np.array([2 if t < 12 else before]))
        assert end.truncated[0]
        return [end, env.step(np.array([at_the_end])), env.step(np.array([3]))]

    up, down = after(2), after(3)
    assert digest(up) == digest(down)
    assert up[1].reward[0, 0] == up[1].score[0, 0] == 0
    assert not up[1].done[0]
    # Negative control: before the end, actions count.
    assert digest(after(2, before=3)) != digest(up)


def test_stack_starts_with_zeros_in_every_game():
    steps = play(make(max_steps=6, noop_max=30, num_stacked=4), 13, action=0)
    for first in (0, 7):
        for t in range(7):
            filled = [bool(frame.any()) for frame in steps[first + t].observation[0]]
            assert filled == [i + t >= 3 for i in range(4)]
    # The frames move on from oldest to newest.
    assert np.array_equal(steps[5].observation[0, 1:], steps[6].observation[0, :-1])


def test_steps_already_handed_out_never_change():
    env = make("breakout", num_envs=2)
    steps = [env.reset(0), env.step(np.array([1, 1]))]
    copies = [digest([step]) for step in steps]
    for _ in range(40):
        env.step(np.array([1, 2]))
    assert [digest([step]) for step in steps] == copies


# --- frames ------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame_skip", [1, 3, 4])
def test_one_agent_step_is_frame_skip_emulator_frames_and_not_their_square(frame_skip):
    env = make(frame_skip=frame_skip, render=True)
    single = make(frame_skip=1, render=True)
    env.reset(0)
    single.reset(0)
    for t in range(20):
        action = np.array([2 if t % 5 < 3 else 3])
        env.step(action)
        frames = [(single.step(action), single.render())[1] for _ in range(frame_skip)]
        assert np.array_equal(env.render(), frames[-1])
    assert not np.array_equal(frames[0], single.step(action).observation), "nothing moves"
    assert env.spec.frames_per_step == frame_skip
    assert env.spec.frame_rate == 60 / frame_skip


def grey(picture: Array) -> Array:
    """Return a picture [H, W, 3] in the emulator's greys [H, W]."""
    return np.rint(picture @ np.array([0.2989, 0.5870, 0.1140])).astype(np.uint8)


def shrunk(greys: Array) -> Array:
    """Return greys [H, W] in the size that agents see, as numbers that can be subtracted."""
    return cv2.resize(greys, (84, 84), interpolation=cv2.INTER_AREA).astype(int)


def seen_and_drawn(env: Atari, num_steps: int) -> tuple[Array, Array]:
    """Return the newest frames that game 0 showed, and its pictures as the agent would see them."""
    random, n = np.random.default_rng(0), env.spec.num_envs
    seen, drawn = [env.reset(3).observation[0, -1].astype(int)], [shrunk(grey(env.render()))]
    for _ in range(num_steps):
        step = env.step(random.integers(env.spec.num_actions, size=n))
        seen.append(step.observation[0, -1].astype(int))
        drawn.append(shrunk(grey(env.render())))
    return np.array(seen), np.array(drawn)


@pytest.mark.parametrize(
    "changes",
    [
        {"game": "pong"},
        {"game": "breakout", "episodic_life": True, "fire_start": True, "num_stacked": 2},
        {"game": "carnival", "full_action_space": True},
    ],
)
def test_picture_is_exactly_the_frame_that_the_agent_sees(changes):
    chance = {"sticky_actions": 0.25, "noop_max": 30, "max_steps": 40, "frame_skip": 1}
    env = make(render=True, num_envs=2, **chance, **changes)
    seen, drawn = seen_and_drawn(env, 130)
    assert np.abs(seen - drawn).max() <= 1
    # Negative control: a picture from the next or the last moment is another one.
    assert np.abs(seen[1:] - drawn[:-1]).max() > 50
    assert np.abs(seen[:-1] - drawn[1:]).max() > 50


def test_picture_keeps_in_step_when_frames_are_skipped_and_merged():
    chance = {"sticky_actions": 0.25, "noop_max": 30, "max_steps": 60}
    seen, drawn = seen_and_drawn(make("breakout", render=True, num_envs=2, **chance), 200)
    apart = np.abs(seen - drawn).mean()
    assert apart < 0.4 * np.abs(seen[1:] - drawn[:-1]).mean()
    assert apart < 0.4 * np.abs(seen[:-1] - drawn[1:]).mean()


def test_last_two_frames_are_merged_by_their_maximum():
    env, single = make(), make(frame_skip=1, render=True)
    env.reset(0)
    single.reset(0)
    apart = []
    for _ in range(60):
        seen = env.step(np.array([2])).observation[0, -1].astype(int)
        frames = [(single.step(np.array([2])), grey(single.render()))[1] for _ in range(4)]
        assert np.abs(seen - shrunk(np.maximum(frames[2], frames[3]))).max() <= 1
        apart.append(np.abs(seen - shrunk(frames[3])).max())
    assert max(apart) > 50, "nothing moved"


@pytest.mark.parametrize(("game", "height"), [("pong", 210), ("air_raid", 250)])
def test_picture_is_the_whole_screen_in_colour(game, height):
    env = make(game, render=True)
    play(env, 30)
    picture = env.render()
    assert picture.shape == (height, 160, 3)
    assert picture.dtype == np.uint8
    assert (picture[..., 0] != picture[..., 2]).any()


# --- the spec ----------------------------------------------------------------------------------


def test_spec_names_the_actions_in_the_games_order():
    assert make("breakout").spec.action_names == ("noop", "fire", "right", "left")
    full = make("breakout", full_action_space=True)
    assert full.spec.action_names == EVERY_ACTION
    assert full.spec.num_actions == 18
    assert make("pong").spec.num_actions == 6


def test_spec_says_what_is_shown():
    spec = make(num_envs=3, num_stacked=2, frame_size=40).spec
    assert spec.num_envs == 3
    assert spec.num_stacked == 2
    assert spec.observation_space.shape == (2, 40, 40)
    assert spec.observation_space.dtype == np.uint8
    assert not spec.exact_resume


def test_reference_scores_are_those_of_the_table():
    assert make("pong").spec.reference_scores == (-20.7, 9.3)  # Mnih et al. 2015
    assert make("air_raid").spec.reference_scores is None


def test_metadata_is_each_instances_own():
    shared = dict(AtariVectorEnv.metadata)
    env = make()
    assert env.games.metadata is not AtariVectorEnv.metadata
    try:
        AtariVectorEnv("pong", 1, autoreset_mode=AutoresetMode.SAME_STEP)
        assert env.games.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
        # Negative control: this is what the others share.
        assert AtariVectorEnv.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    finally:
        AtariVectorEnv.metadata.clear()
        AtariVectorEnv.metadata.update(shared)


def test_every_game_with_a_reference_score_can_be_played():
    from envs.atari import reference_scores

    assert len(reference_scores()) == 57
    assert set(reference_scores()) <= set(games())
    assert len(games()) > 100
