"""Laws of rlplay/metrics.py: what the log says of episodes, of runs side by side, and of time."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from rlplay import checkpoint, metrics
from rlplay.core import Agent, Decision, Spec, Step
from rlplay.metrics import Averages, Episodes
from rlplay.play import play


class Counters:
    """Two worlds that end after 2 and 3 steps, the second one by being cut short. A step earns 1
    and scores 10, in the second world 20."""

    def __init__(self) -> None:
        self.spec = Spec(2, Box(0, 9, (1,)), Discrete(2))

    def reset(self, seed: int) -> Step:
        self.count = np.zeros(2, np.int64)
        return Step.at(self.count[:, None].astype(np.float32), 2)

    def step(self, action: np.ndarray) -> Step:
        over = self.count == (2, 3)
        self.count = np.where(over, 0, self.count + 1)
        moved = ~over[:, None]
        return Step.at(
            self.count[:, None].astype(np.float32),
            2,
            reward=np.array([[1], [1]], np.float32) * moved,
            score=np.array([[10], [20]], np.float32) * moved,
            terminated=(self.count == 2) & [True, False],
            truncated=(self.count == 3) & [False, True],
        )


class Idle(Agent):
    def act(self, step: Step, explore: bool = True) -> Decision:
        return Decision(np.zeros(len(step.action_mask), np.int64), {})


def test_reward_score_and_length_of_episodes_are_counted_across_the_autoreset():
    env = Counters()
    episodes = Episodes(env.spec, Averages())
    moments = episodes.listen(play(env, Idle(), env.reset(0)))
    done = 0
    for _ in range(11):
        done += int(next(moments).following.done.sum())
    # World 0 ends at moments 2, 5, 8, 11, world 1 at 3, 7, 11: reward, score, length of each.
    first, second = [2.0, 20.0, 2.0], [3.0, 60.0, 3.0]
    assert list(episodes.finished) == [first, second, first, second, first, first, second]
    assert episodes.count == done == 7
    assert episodes.metrics() == {
        "rollout/ep_rew_mean": pytest.approx((4 * 2 + 3 * 3) / 7),
        "rollout/ep_score_mean": pytest.approx((4 * 20 + 3 * 60) / 7),
        "rollout/ep_len_mean": pytest.approx((4 * 2 + 3 * 3) / 7),
    }


def test_no_episode_is_no_metric():
    assert Episodes(Counters().spec, Averages()).metrics() == {}


def test_episodes_under_way_survive_saving():
    env, other = Counters(), Counters()
    episodes, again = Episodes(env.spec, Averages()), Episodes(other.spec, Averages())
    moments = episodes.listen(play(env, Idle(), env.reset(0)))
    for _ in range(4):
        moment = next(moments)
    other.count = env.count
    again.load_state_dict(copy.deepcopy(episodes.state_dict()))
    for stream in (moments, again.listen(play(other, Idle(), moment.following))):
        for _ in range(6):
            next(stream)
    assert again.finished == episodes.finished
    assert again.count == episodes.count
    assert np.array_equal(again.running, episodes.running)


def test_averages_are_means_since_the_last_line_and_of_whole_numbers_the_latest(tmp_path):
    averages = Averages()
    averages.add({"train/loss": 1.0, "train/n_updates": 7})
    averages.add({"train/loss": 2.0, "train/n_updates": 9})
    averages.add({"other": 5.0})
    assert averages.take() == {"train/loss": 1.5, "train/n_updates": 9, "other": 5.0}
    assert averages.take() == {}
    averages.add({"train/loss": 4.0})
    checkpoint.save(tmp_path, "1", {"averages": averages.state_dict()})
    saved = checkpoint.load(tmp_path / "1")["averages"]
    averages.add({"train/loss": 8.0})
    again = Averages()
    again.load_state_dict(saved)
    again.add({"train/loss": 8.0})
    assert again.take() == averages.take() == {"train/loss": 6.0}


def test_metric_by_run_is_averaged_over_time_then_over_runs_with_its_interval():
    averages = Averages()
    averages.add({"rollout/regret": np.array([1.0, 2.0, 6.0])})
    averages.add({"rollout/regret": np.array([3.0, 4.0, np.nan])})
    taken = averages.take()
    runs = np.array([2.0, 3.0, 6.0])  # the third run told something once
    assert taken["rollout/regret"] == pytest.approx(runs.mean())
    assert taken["rollout/regret_ci"] == pytest.approx(1.96 * runs.std(ddof=1) / np.sqrt(3))


def test_metric_that_nobody_knows_is_left_out():
    averages = Averages()
    averages.add({"rollout/regret": np.full(2, np.nan)})
    assert averages.take() == {}


def test_interval_covers_the_mean_as_often_as_it_says():
    random, covered = np.random.default_rng(0), 0
    for _ in range(1000):
        averages = Averages()
        averages.add({"x": random.normal(5, 2, size=100)})
        taken = averages.take()
        covered += abs(taken["x"] - 5) < taken["x_ci"]
    assert 920 < covered < 970


def test_measures_of_the_world_are_logged_as_rollout():
    env, averages = Counters(), Averages()
    plain = env.step
    env.step = lambda action: plain(action)._replace(measures={"distance": env.count * 1.0})
    moments = Episodes(env.spec, averages).listen(play(env, Idle(), env.reset(0)))
    for _ in range(2):
        next(moments)
    assert averages.take()["rollout/distance"] == pytest.approx(1.5)


def test_episodes_are_told_apart_by_their_number_in_each_env():
    env = Counters()
    episodes = Episodes(env.spec, Averages())
    moments = episodes.listen(play(env, Idle(), env.reset(0)))
    for time in range(1, 12):
        next(moments)
        episodes.note("error", np.array([time, -time], float))
    # World 0 ends at moments 2, 5, 8, 11 with score 20; world 1 at 3, 7, 11 with score 60.
    count, total, squares = episodes.by_number["score"][:4].T
    assert count.tolist() == [2, 2, 2, 1]
    assert total.tolist() == [80, 80, 80, 20]
    assert squares.tolist() == [4000, 4000, 4000, 400]
    assert episodes.by_number["error"][:4, 1].tolist() == [2 - 3, 5 - 7, 8 - 11, 11]
    assert episodes.by_number["length"][:3, 1].tolist() == [5, 5, 5]


def test_episodes_beyond_the_last_numbered_one_are_counted_and_not_told_apart(monkeypatch):
    monkeypatch.setattr(metrics, "MAX_EPISODES", 2)
    env = Counters()
    episodes = Episodes(env.spec, Averages())
    moments = episodes.listen(play(env, Idle(), env.reset(0)))
    for _ in range(11):
        next(moments)
    assert episodes.count == 7
    assert episodes.by_number["score"][:, 0].sum() == 4


def test_of_what_is_cumulative_the_latest_value_is_logged():
    averages = Averages()
    for value in ([1.0, 2.0], [3.0, 5.0], [np.nan, 6.0]):
        averages.add({"rollout/cumulative_regret": np.array(value)})
    taken = averages.take()
    assert taken["rollout/cumulative_regret"] == pytest.approx((3 + 6) / 2)
    averages.add({"rollout/cumulative_regret": np.full(2, np.nan)})
    assert averages.take() == {}
