"""The arms pay what they should, env i keeps its problem, and the measures tell the truth."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats
from sklearn.datasets import load_digits

from envs.bandit import Bandits, Config
from rlplay import checkpoint, config
from rlplay.core import Mistake, Step
from rlplay.palette import AMBER, GREEN, RED

KINDS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "bernoulli": {"reward": "bernoulli"},
    "listed": {"reward": "bernoulli", "arms": (0.9, 0.6)},
    "walking": {"change": "random_walk"},
    "changing": {"change": "abrupt", "change_every": 7},
    "changing bernoulli": {"reward": "bernoulli", "change": "abrupt", "change_every": 7},
    "linear": {"contexts": "linear"},
    "digits": {"contexts": "digits"},
}


def make(num_envs: int = 3, **settings: Any) -> Bandits:
    return Config(num_envs=num_envs, **settings).make()


def pulled(env: Bandits, num_pulls: int, seed: int = 0, step: Step | None = None) -> list[Step]:
    """Pull random arms; return all steps, from a reset where no step is given."""
    random = np.random.default_rng(seed)
    steps = [env.reset(seed) if step is None else step]
    for _ in range(num_pulls):
        steps.append(env.step(random.integers(env.spec.num_actions, size=env.spec.num_envs)))
    return steps


def measure(steps: list[Step], name: str) -> np.ndarray:  # [T, N]
    measures = [step.measures for step in steps]
    assert all(found is not None for found in measures)
    return np.stack([found[name] for found in measures if found])


# What the arms pay.


def test_bernoulli_arms_pay_one_with_their_probability():
    arms = (0.0, 0.2, 0.7, 1.0)
    env = make(50_000, reward="bernoulli", arms=arms)
    env.reset(0)
    for arm, probability in enumerate(arms):
        reward = env.step(np.full(50_000, arm)).reward
        assert set(np.unique(reward)) <= {0.0, 1.0}
        assert abs(reward.mean() - probability) < 0.01


def test_gaussian_arms_pay_their_mean_and_noise():
    env = make(20_000, arms=(-1.0, 5.0), reward_std=2.0)
    env.reset(0)
    for arm, mean in enumerate((-1.0, 5.0)):
        reward = env.step(np.full(20_000, arm)).reward[:, 0]
        assert stats.kstest(reward, stats.norm(mean, 2.0).cdf).pvalue > 1e-3
        assert stats.kstest(reward, stats.norm(mean, 2.2).cdf).pvalue < 1e-3  # negative control


@pytest.mark.parametrize(
    ("settings", "law"),
    [
        ({}, stats.norm(0, 1)),
        ({"arm_mean": 4.0}, stats.norm(4, 1)),
        ({"reward": "bernoulli"}, stats.uniform()),
        ({"contexts": "linear"}, stats.norm(0, 1)),  # by the features that are drawn
    ],
)
def test_drawn_arms_are_those_of_the_testbed(settings, law):
    env = make(2000, **settings)
    env.reset(0)
    assert stats.kstest(env.mean.ravel(), law.cdf).pvalue > 1e-3
    assert stats.kstest(env.mean.ravel(), stats.norm(0.5, 1).cdf).pvalue < 1e-3


def test_right_class_of_a_digit_pays_one_and_no_other():
    env = make(2, contexts="digits", max_steps=10_000)
    known = {tuple(row / 16): c for row, c in zip(*load_digits(return_X_y=True), strict=True)}
    steps = [env.reset(0)]
    for t in range(300):
        classes = np.array([known[tuple(seen.tolist())] for seen in steps[-1].observation])
        action = classes if t % 2 else (classes + 1 + t % 9) % 10
        steps.append(env.step(action))
        assert (steps[-1].reward == t % 2).all()


def test_every_env_sees_each_digit_once_a_shuffle_even_across_episodes():
    env = make(3, contexts="digits", max_steps=1000)
    steps = pulled(env, 2 * 1797 + 3)  # three of them only begin an episode
    asked = [before.observation for before, after in pairwise(steps) if not before.done.any()]
    pictures = np.unique(load_digits(return_X_y=True)[0] / 16, axis=0)
    for first in (0, 1797):
        for i in range(3):
            seen = np.stack(asked[first : first + 1797])[:, i]
            assert np.array_equal(np.unique(seen, axis=0), pictures)
    orders = {np.stack(asked[f : f + 1797])[:, i].tobytes() for f in (0, 1797) for i in range(3)}
    assert len(orders) == 6


def test_least_squares_recovers_the_hidden_vectors_of_linear_arms():
    env = make(2, contexts="linear", num_arms=3, num_features=4, max_steps=100_000)
    assert np.allclose(np.linalg.norm(env.theta, axis=2), 1)
    steps = pulled(env, 6000)
    random = np.random.default_rng(0)
    actions = np.stack([random.integers(3, size=2) for _ in range(6000)])
    x, reward = np.stack([s.observation for s in steps[:-1]]), np.stack([s.reward for s in steps])
    for i in range(2):
        for arm in range(3):
            mine = actions[:, i] == arm
            found = np.linalg.lstsq(x[mine, i], reward[1:, i, 0][mine])[0]
            assert np.abs(found - env.theta[i, arm]).max() < 0.1
            assert np.abs(found - env.theta[1 - i, arm]).max() > 0.1


# Arms that move.


def test_walking_arms_begin_equal_and_take_steps_of_their_scale():
    env = make(500, change="random_walk", arm_std=0.0, arm_mean=2.0, walk_scale=0.1, max_steps=50)
    env.reset(0)
    means = [env.mean.copy()]
    for _ in range(50):
        env.step(np.zeros(500, np.int64))
        means.append(env.mean.copy())
    assert (means[0] == 2).all()
    steps = np.diff(np.stack(means), axis=0).ravel()
    assert stats.kstest(steps[:20_000], stats.norm(0, 0.1).cdf).pvalue > 1e-3
    assert abs(np.stack(means)[-1].std() - 0.1 * 50**0.5) < 0.02
    env.step(np.zeros(500, np.int64))
    assert (env.mean == 2).all(), "an episode begins at the beginning of its problem"


@pytest.mark.parametrize("reward", ["gaussian", "bernoulli"])
def test_abrupt_change_draws_all_arms_anew_and_only_then(reward):
    env = make(20, reward=reward, change="abrupt", change_every=7, max_steps=20)
    env.reset(0)
    means = [env.mean.copy()]
    for _ in range(21):
        env.step(np.zeros(20, np.int64))
        means.append(env.mean.copy())
    for pulls, (before, after) in enumerate(pairwise(means[:21]), 1):
        assert (before != after).all() if pulls % 7 == 0 else (before == after).all()
    assert np.array_equal(means[21], means[0])


# Env i faces problem i.


@pytest.mark.parametrize("kind", KINDS)
def test_problem_depends_on_its_seed_and_env_alone(kind):
    many, few = make(5, **KINDS[kind]), make(2, **KINDS[kind])
    assert np.array_equal(many.start[:2], few.start)
    if kind == "linear":
        assert np.array_equal(many.theta[:2], few.theta)
    if kind in ("gaussian", "bernoulli", "walking"):
        many.reset(3)
        few.reset(8)
        assert np.array_equal(many.mean[:2], few.mean)
        assert (make(2, problem_seed=1, **KINDS[kind]).start != few.start).all()
        assert (few.start[0] != few.start[1]).all()


def test_next_episode_is_about_the_same_arms():
    env = make(4, max_steps=5)
    env.reset(0)
    best = env.mean.argmax(1)
    for _ in range(4):
        steps = [env.step(best) for _ in range(5)]
        assert (measure(steps, "optimal_action") == 1).all()
        assert not env.step(best).reward.any()


def test_reset_with_another_seed_pays_otherwise():
    env = make(3)
    paid = [measure(pulled(env, 20, seed)[1:], "reward") for seed in (0, 0, 1)]
    assert np.array_equal(paid[0], paid[1])
    assert not np.array_equal(paid[0], paid[2])


# Episodes and measures.


@pytest.mark.parametrize("kind", KINDS)
def test_episode_is_truncated_and_never_terminated(kind):
    steps = pulled(make(max_steps=6, **KINDS[kind]), 20)
    assert [t for t, step in enumerate(steps) if step.truncated.all()] == [6, 13, 20]
    assert [t for t, step in enumerate(steps) if step.truncated.any()] == [6, 13, 20]
    assert all((step.discount == 1).all() and not step.terminated.any() for step in steps)
    for t in (0, 7, 14):
        measures = steps[t].measures
        assert measures
        assert all(np.isnan(value).all() for value in measures.values())
        assert {*measures} >= {"reward", "optimal_action", "cumulative_regret"}


@pytest.mark.parametrize("kind", KINDS)
def test_regret_is_the_sum_of_gaps_and_never_falls(kind):
    env = make(4, max_steps=40, **KINDS[kind])
    step, random, total = env.reset(0), np.random.default_rng(0), np.zeros(4)
    for _ in range(40):
        action = random.integers(env.spec.num_actions, size=4)
        gap = env.mean.max(1) - env.mean[np.arange(4), action]
        best = env.mean.argmax(1) == action
        step = env.step(action)
        assert step.measures
        before, total = total, total + gap
        assert np.allclose(step.measures["cumulative_regret"], total)
        assert (step.measures["cumulative_regret"] >= before - 1e-9).all()
        assert np.array_equal(step.measures["optimal_action"], best)
        assert np.array_equal(step.measures["reward"].astype(np.float32), step.reward[:, 0])
    assert (total > 0).all()


def test_either_of_two_best_arms_is_optimal():
    env = make(2, arms=(0.5, 0.5, 0.1))
    env.reset(0)
    steps = [env.step(np.array([0, 1])), env.step(np.array([2, 0]))]
    assert measure(steps, "optimal_action").tolist() == [[1, 1], [0, 1]]
    assert np.allclose(measure(steps, "cumulative_regret"), [[0, 0], [0.4, 0]])


@pytest.mark.parametrize(
    ("arms", "bound"),
    [
        ((0.9, 0.6), 247),
        ((0.9, 0.8), 737),
        ((0.9, *[0.6] * 9), 2222),
        ((0.9, *[0.8] * 9), 6635),
    ],
)
def test_regret_bound_is_that_of_auer(arms, bound):
    """The bounds at 10,000 pulls, to the unit."""
    env = make(1, reward="bernoulli", arms=arms, max_steps=10_000)
    env.reset(0)
    env.time = 9_999
    assert round(measure([env.step(np.array([0]))], "cumulative_regret_bound").item()) == bound


@pytest.mark.parametrize("kind", KINDS)
def test_regret_bound_is_given_where_it_holds(kind):
    step = pulled(make(**KINDS[kind]), 3)[-1]
    assert step.measures
    assert ("cumulative_regret_bound" in step.measures) == (kind in ("bernoulli", "listed"))


# Saving, drawing, settings.


@pytest.mark.parametrize("kind", KINDS)
def test_saved_bandit_goes_on_bitwise(kind, tmp_path):
    env, other = make(max_steps=25, **KINDS[kind]), make(max_steps=25, **KINDS[kind])
    step = pulled(env, 30)[-1]
    checkpoint.save(tmp_path, "1", {"env": env.state_dict()})
    ahead = pulled(env, 60, step=step)
    other.reset(5)
    restored = other.load_state_dict(checkpoint.load(tmp_path / "1")["env"])
    for left, right in zip(ahead, pulled(other, 60, step=restored), strict=True):
        assert all(map(np.array_equal, left[:8], right[:8]))
        assert left.measures
        assert right.measures
        for name, value in left.measures.items():
            assert np.array_equal(value, right.measures[name], equal_nan=True)


def test_what_steps_share_cannot_be_written_to():
    step = make().reset(0)
    for array in (step.action_mask, step.reward, step.truncated, step.discount):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize(
    "settings",
    [
        *KINDS.values(),
        {"num_arms": 80},
        {"arms": (1.0, 1.0), "reward_std": 0.0},
        {"contexts": "linear", "num_features": 40},
    ],
)
def test_picture_shows_the_last_pull_and_keeps_its_shape(settings):
    env = Config(max_steps=12, **settings).make(render=True)
    step = env.reset(0)
    pictures = [env.render()]
    for t in range(30):
        arm = env.mean[0].argmax() if t % 2 else env.mean[0].argmin()
        step = env.step(np.array([arm]))
        pictures.append(env.render())
        assert pictures[-1].dtype == np.uint8
        assert pictures[-1].shape == (420, 640, 3)
        marks = [GREEN, RED] if settings.get("contexts") == "digits" else [AMBER]
        assert any((pictures[-1] == ink).all(2).any() for ink in marks) or not env.time
        assert not np.array_equal(pictures[-1], pictures[-2]) or step.done.all()
    assert not any((pictures[0] == ink).all(2).any() for ink in (AMBER, RED))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--arms 0.5", "at least 2 arms"),
        ("--num-arms 1", "at least 2"),
        ("--reward bernoulli --arms 0.5 1.5", "from 0 to 1, not 1.5"),
        ("--arms 0.5 inf", "finite"),
        ("--reward bernoulli --change random_walk", "set env.change to abrupt"),
        ("--arms 0.1 0.2 --change abrupt", "leave env.arms out"),
        ("--arms 0.1 0.2 --contexts linear", "leave env.arms out"),
        ("--change abrupt --contexts digits", "leave env.change out"),
        ("--reward bernoulli --contexts linear", "leave env.reward out"),
        ("--contexts digits --num-arms 5", "set env.num_arms to 10, not 5"),
    ],
)
def test_settings_that_contradict_each_other_get_one_sentence(flags, words, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(yaml.dump({"env": {"name": "bandit"}, "agent": {"name": "uniform"}}))
    typed = [f"--env.{word[2:]}" if word.startswith("--") else word for word in flags.split()]
    with pytest.raises(Mistake) as caught:
        config.load(str(path), typed).env.make()
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_worlds_of_contexts_are_named_after_them():
    names = [Config(contexts=contexts).world for contexts in ("none", "linear", "digits")]
    assert names == ["bandit", "linear-bandit", "digits-bandit"]
    fewer = dataclasses.replace(Config(num_envs=2000).for_evaluation(), num_envs=10)
    assert np.array_equal(fewer.make().start, Config(num_envs=2000).make().start[:10])


@pytest.mark.parametrize("contexts", ["none", "linear"])
def test_evaluation_with_more_envs_meets_the_problems_that_were_learned(contexts):
    training = Config(num_envs=3, contexts=contexts)
    small = training.make()
    large = dataclasses.replace(training.for_evaluation(), num_envs=7).make()
    for i in range(7):
        assert np.array_equal(large.start[i], small.start[i % 3])
        assert np.array_equal(large.theta[i], small.theta[i % 3])
    # Negative control: envs that are trained in face problems of their own.
    other = dataclasses.replace(training, num_envs=7).make()
    assert not np.array_equal(other.start + other.theta[..., 0], large.start + large.theta[..., 0])
