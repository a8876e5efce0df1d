"""Laws of rlplay/normalize.py, held against numpy and against VecNormalize of SB3."""

from __future__ import annotations

import numpy as np
import pytest

from rlplay import checkpoint
from rlplay.normalize import LIMIT, Moments, Observations, Rewards

RANDOM = np.random.default_rng(0)


def test_moments_of_batches_are_those_of_everything():
    values = RANDOM.normal(3, 2, size=(500, 4)) * [1, 10, 100, 0]
    moments = Moments((4,))
    for part in np.split(values, [1, 7, 7, 300]):  # one of them empty
        moments.add(part)
    assert moments.count == 500
    assert moments.mean == pytest.approx(values.mean(0))
    assert np.allclose(moments.variance, values.var(0))


def test_moments_of_large_float32_numbers_do_not_drift():
    values = (1e4 + RANDOM.normal(size=(20_000, 1))).astype(np.float32)
    moments = Moments((1,))
    for part in np.split(values, 100):
        moments.add(part)
    assert moments.variance == pytest.approx(values.astype(np.float64).var(0), rel=1e-6)


def test_observations_are_normalized_and_cut_off():
    seen = Observations((2,))
    raw = RANDOM.normal([5, -3], [2, 0.1], size=(1000, 2))
    assert np.array_equal(seen.normalized(raw[:3]), raw[:3].astype(np.float32))  # nothing is known
    seen.add(raw)
    scaled = seen.normalized(raw.reshape(10, 100, 2))
    assert scaled.dtype == np.float32
    assert scaled.shape == (10, 100, 2)
    assert scaled.mean((0, 1)) == pytest.approx([0, 0], abs=1e-5)
    assert scaled.std((0, 1)) == pytest.approx([1, 1], abs=1e-4)
    assert seen.normalized(np.array([1e9, -1e9])).tolist() == [LIMIT, -LIMIT]


def test_observation_that_never_changes_is_zero():
    seen = Observations((1,))
    seen.add(np.full((100, 1), 7.0))
    assert seen.normalized(np.array([7.0])).tolist() == [0]


def test_rewards_are_divided_as_stable_baselines3_does():
    import gymnasium
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    wrapped = VecNormalize(DummyVecEnv([lambda: gymnasium.make("CartPole-v1")] * 3), gamma=0.9)
    wrapped.ret_rms.count = 0  # it begins with a pseudo-count
    rewards, length = Rewards(3, 0.9), 50
    reward = RANDOM.normal(1, 3, size=(length, 3))
    done = RANDOM.random((length, 3)) < 0.2
    for t in range(length):
        wrapped._update_reward(reward[t])
        wrapped.returns[done[t]] = 0
    for part in (slice(0, 20), slice(20, length)):
        rewards.add_rewards(reward[part], np.ones_like(done[part]), done[part])
    assert rewards.variance == pytest.approx(float(wrapped.ret_rms.var))
    assert rewards.normalized(reward) == pytest.approx(wrapped.normalize_reward(reward), rel=1e-5)


def test_moments_at_which_nothing_could_be_earned_do_not_count():
    plain, ignored = Rewards(1, 0.9), Rewards(1, 0.9)
    earned, done = np.array([[1.0], [2.0], [3.0]]), np.array([[False], [True], [False]])
    plain.add_rewards(earned, np.ones_like(done), done)
    earned = np.insert(earned, 2, 0, axis=0)
    live = np.array([[True], [True], [False], [True]])
    ignored.add_rewards(earned, live, np.insert(done, 2, False, axis=0))
    assert ignored.state_dict() == plain.state_dict()


def test_sums_end_with_the_episode_and_with_a_cut():
    rewards = Rewards(2, 1.0)
    never = np.zeros((3, 2), bool)
    over = never.copy()
    over[2, 0] = True
    rewards.add_rewards(np.ones((3, 2)), ~never, over)
    assert rewards.running.tolist() == [0, 3]
    rewards.cut()
    assert rewards.running.tolist() == [0, 0]


def test_sign_of_a_reward_stays():
    rewards = Rewards(1, 0.9)
    rewards.add(RANDOM.normal(100, 5, size=1000))
    assert rewards.normalized(np.array([-1.0, 0.0, 1.0])).tolist() == pytest.approx(
        [-0.2, 0, 0.2], abs=0.02
    )


def test_saved_numbers_go_on_the_same(tmp_path):
    rewards, other = Rewards(2, 0.9), Rewards(2, 0.9)
    reward, never = RANDOM.normal(size=(10, 2)), np.zeros((10, 2), bool)
    rewards.add_rewards(reward, ~never, never)
    checkpoint.save(tmp_path, "1", {"agent": {"rewards": rewards.state_dict()}})
    other.load_state_dict(checkpoint.load(tmp_path / "1")["agent"]["rewards"])
    for one in (rewards, other):
        one.add_rewards(reward, ~never, never)
    assert other.variance.tobytes() == rewards.variance.tobytes()
    assert other.running.tobytes() == rewards.running.tobytes()
    assert other.count == 40
