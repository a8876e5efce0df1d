"""The laws that every env keeps: each file in envs/, with its default settings, by discovery."""

from __future__ import annotations

import dataclasses
import re
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.gymnasium import AsGymnasium
from rlplay import checkpoint, config
from rlplay.core import Array, Env, Spec, Step

NAMES = config.names("envs")
pytestmark = pytest.mark.parametrize("name", NAMES)


def settings(name: str, **changes: Any) -> Any:
    """Return the default settings of an env, with those `changes` that it knows of."""
    default = config.plugin("envs", name).Config()
    known = {field.name for field in dataclasses.fields(default)}
    return dataclasses.replace(default, **{k: v for k, v in changes.items() if k in known})


def make(name: str, num_envs: int = 2, render: bool = False, **changes: Any) -> Env:
    """Return an env whose episodes are short where its settings allow it."""
    short = {"max_steps": 12, "size": 6}
    return settings(name, num_envs=num_envs, **{**short, **changes}).make(render=render)


def legal(spec: Spec, step: Step, random: np.random.Generator) -> Array:
    """Return one random legal action for each env."""
    if spec.num_actions:
        return np.array([random.choice(np.flatnonzero(mask)) for mask in step.action_mask])
    space: Any = spec.action_space
    return random.uniform(-1, 1, (spec.num_envs, *space.shape)).astype(np.float32)


def play(env: Env, num_steps: int, seed: int = 0, step: Step | None = None) -> list[Step]:
    random = np.random.default_rng(seed)
    steps = [env.reset(seed) if step is None else step]
    for _ in range(num_steps):
        steps.append(env.step(legal(env.spec, steps[-1], random)))
    return steps


def same(left: Step, right: Step) -> bool:
    pairs = zip(left[:8], right[:8], strict=True)  # the arrays that agents see
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def check(step: Step, spec: Spec) -> None:
    n, a, p = spec.num_envs, spec.num_actions, spec.num_players
    kinds = {
        "observation": ((n, *(spec.observation_space.shape or ())), spec.observation_space.dtype),
        "action_mask": ((n, a), np.bool_),
        "player": ((n,), np.int64),
        "reward": ((n, p), np.float32),
        "score": ((n, p), np.float32),
        "terminated": ((n,), np.bool_),
        "truncated": ((n,), np.bool_),
        "discount": ((n,), np.float32),
    }
    for field, (shape, dtype) in kinds.items():
        leaf = getattr(step, field)
        assert isinstance(leaf, np.ndarray), field
        assert (leaf.shape, leaf.dtype) == (shape, np.dtype(dtype)), field
    assert all(spec.observation_space.contains(seen) for seen in step.observation)
    assert not a or step.action_mask.any(1).all(), "no action is legal"
    assert ((step.player >= 0) & (step.player < p)).all()
    assert np.isfinite(step.reward).all()
    assert np.isfinite(step.score).all()
    assert not (step.terminated & step.truncated).any()
    assert ((step.discount == 0) | (step.discount == 1)).all()
    assert (step.discount[step.terminated] == 0).all()


def test_every_step_has_the_promised_shapes_and_values(name):
    env = make(name, num_envs=3)
    steps = play(env, 150)
    for step in steps:
        check(step, env.spec)
    assert any(step.done.any() for step in steps), "no episode ended, so little was tested"
    one_state = env.spec.observation_space == gymnasium.spaces.Discrete(1)
    assert one_state or any((step.observation != steps[0].observation).any() for step in steps)
    env.close()


@pytest.mark.parametrize("num_envs", [1, 3])
def test_number_of_envs_is_as_asked(name, num_envs):
    env = make(name, num_envs)
    assert env.spec.num_envs == num_envs
    assert len(env.reset(0).observation) == num_envs
    env.close()


def test_episodes_start_with_nothing_earned_and_nothing_over(name):
    env = make(name)
    steps = play(env, 60)
    starts = [(steps[0], i) for i in range(2)]
    starts += [
        (following, i) for step, following in pairwise(steps) for i in np.flatnonzero(step.done)
    ]
    assert len(starts) > 2
    for step, i in starts:
        assert not step.done[i]
        assert not step.reward[i].any()
        assert not step.score[i].any()
        assert step.discount[i] == 1
    env.close()


def test_same_seed_is_the_same_stream_and_reset_starts_it_anew(name):
    one, two = make(name), make(name)
    play(two, 5, seed=3)
    for left, right in zip(play(one, 80, seed=0), play(two, 80, seed=0), strict=True):
        assert same(left, right)
    # Negative control: other actions are another stream.
    random, other = np.random.default_rng(9), [one.reset(0)]
    for _ in range(80):
        other.append(one.step(legal(one.spec, other[-1], random)))
    assert not all(same(left, right) for left, right in zip(play(two, 80), other, strict=True))
    one.close()
    two.close()


def test_action_after_the_end_is_ignored(name):
    one, two = make(name, num_envs=1), make(name, num_envs=1)
    random, step = np.random.default_rng(0), one.reset(0)
    other = two.reset(0)
    num_ends = 0
    for _ in range(80):
        action = another = legal(one.spec, step, random)
        if step.done[0] and one.spec.num_actions:
            another = (action + 1) % one.spec.num_actions
            num_ends += 1
        step, other = one.step(action), two.step(another)
        assert same(step, other)
    assert num_ends > 1 or not one.spec.num_actions
    one.close()
    two.close()


def test_action_out_of_range_raises(name):
    env = make(name)
    step = env.reset(0)
    if not env.spec.num_actions:
        pytest.skip("its actions are continuous")
    for bad in ([0, env.spec.num_actions], [-1, 0], [0], [0.5, 0.5]):
        with pytest.raises(ValueError, match="actions must be"):
            env.step(np.array(bad))
    check(env.step(legal(env.spec, step, np.random.default_rng(0))), env.spec)
    env.close()


def test_steps_already_handed_out_never_change(name):
    env = make(name)
    steps = play(env, 3)
    copies = [Step(*map(np.copy, step[:8])) for step in steps]
    play(env, 30, step=steps[-1])
    assert all(same(step, copy) for step, copy in zip(steps, copies, strict=True))
    env.close()


def test_env_made_to_be_drawn_is_drawn_and_plays_no_other_way(name):
    env, plain = make(name, render=True), make(name)
    drawn, undrawn = env.reset(1), plain.reset(1)
    random, shape = np.random.default_rng(0), env.render().shape
    for _ in range(30):
        assert same(drawn, undrawn)
        picture = env.render()
        assert picture.dtype == np.uint8
        assert picture.shape == shape
        assert (picture.ndim, shape[2]) == (3, 3)
        action = legal(env.spec, drawn, random)
        drawn, undrawn = env.step(action), plain.step(action)
    assert picture.any()
    env.close()
    plain.close()


def test_saved_world_is_restored_exactly_or_does_not_promise_it(name, tmp_path):
    env, other = make(name, max_steps=40), make(name, max_steps=40)
    step = play(env, 30)[-1]
    checkpoint.save(tmp_path, "1", {"env": env.state_dict()})
    if not env.spec.exact_resume:
        return
    other.reset(5)
    restored = other.load_state_dict(checkpoint.load(tmp_path / "1")["env"])
    assert same(step, restored)
    pairs = zip(play(env, 80, step=step), play(other, 80, step=restored), strict=True)
    assert all(same(left, right) for left, right in pairs)
    env.close()
    other.close()


def test_evaluation_is_of_the_same_world_with_true_rewards(name):
    training = settings(name, num_envs=2, max_steps=30)
    evaluation = training.for_evaluation()
    assert type(evaluation) is type(training)
    assert evaluation.world == training.world
    assert evaluation.for_evaluation() == evaluation
    env = evaluation.make()
    for step in play(env, 100):
        assert np.array_equal(step.reward, step.score)
        assert np.array_equal(step.discount == 0, step.terminated)
    env.close()


def test_spec_is_complete(name):
    env = make(name)
    spec = env.spec
    assert isinstance(spec.observation_space, gymnasium.Space)
    assert isinstance(spec.action_space, gymnasium.Space)
    assert spec.frame_rate > 0
    assert spec.frames_per_step >= 1
    assert len(spec.action_names) in (0, spec.num_actions)
    if spec.num_stacked > 1:
        assert spec.observation_space.shape is not None
        assert spec.observation_space.shape[0] == spec.num_stacked
    env.close()


def test_settings_carry_the_files_name_and_a_world_fit_for_a_folder(name):
    default = settings(name)
    assert default.name == name
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", default.world)
    assert config.about("envs", name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        default.num_envs = 3


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_world_is_a_gymnasium_env_through_the_adapter(name):
    world = make(name, num_envs=1)
    if world.spec.num_players > 1:
        pytest.skip("it is for two")
    env = AsGymnasium(world, nearest_legal=True)  # the checker knows of no mask
    check_env(env, skip_render_check=True)
    env.close()
