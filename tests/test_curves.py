"""What is drawn are the logged numbers, and statistics that a slower second reckoning confirms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from rlplay import curves, evaluate
from rlplay.core import Mistake
from rlplay.curves import curve, group, study
from rlplay.run import Run


def make(folder: Path, lines=(), episodes=None, num_envs=1, seed=0, env=None, **agent) -> Run:
    """Write a run folder with log lines of (step, metrics) and arrays by episode."""
    settings = {
        "env": {"name": "walk", "num_envs": num_envs, **(env or {})},
        "agent": {"name": "td", **agent},
        "num_steps": 100,
        "seed": seed,
    }
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    text = "".join(json.dumps({"step": step, **metrics}) + "\n" for step, metrics in lines)
    (folder / "metrics.jsonl").write_text(text)
    if episodes is not None:
        np.savez(folder / "episodes.npz", **episodes)
    return Run(folder)


def counted(values: np.ndarray) -> np.ndarray:
    """Return [E, 3] count, sum and sum of squares of [E, N] values, of which NaN did not happen."""
    return np.stack(
        [(~np.isnan(values)).sum(1), np.nansum(values, 1), np.nansum(values**2, 1)], axis=1
    )


def test_curve_of_one_run_is_what_was_logged(tmp_path):
    lines = [(10 * t, {"a/b": 0.1 * t**2, "a/b_ci": 0.01 * t}) for t in range(1, 8)]
    found = curve([make(tmp_path / "run", lines, num_envs=5)], "a/b", "steps")
    assert found.x.tolist() == [10 * t for t in range(1, 8)]
    assert found.mean.tolist() == [0.1 * t**2 for t in range(1, 8)]
    np.testing.assert_allclose(found.high - found.mean, [0.01 * t for t in range(1, 8)])
    np.testing.assert_allclose(found.mean - found.low, [0.01 * t for t in range(1, 8)])
    assert found.num_runs == 5
    assert found.about == "mean of 5 runs, 95% interval"


def test_where_no_interval_was_logged_there_is_no_band(tmp_path):
    found = curve([make(tmp_path / "run", [(1, {"a/b": 2.0})], num_envs=5)], "a/b")
    assert np.isnan(found.low).all()
    assert np.isnan(found.high).all()
    assert (found.num_runs, found.about) == (1, "")


def test_last_word_about_a_step_counts_and_what_is_no_number_does_not(tmp_path):
    lines = [(1, {"a/b": 1.0}), (2, {"a/b": float("nan")}), (3, {"a/b": 4.0}), (3, {"a/b": 5.0})]
    found = curve([make(tmp_path / "run", lines)], "a/b")
    assert found.x.tolist() == [1, 3]
    assert found.mean.tolist() == [1, 5]


def test_x_is_in_steps_of_each_env_or_in_seconds_as_asked(tmp_path):
    lines = [(10 * t, {"a/b": 1.0, "time/time_elapsed": 2.0 * t}) for t in range(1, 5)]
    lines.insert(2, (25, {"eval/mean_reward": 7.0}))  # the clock is not in its line
    run = make(tmp_path / "run", lines, num_envs=5)
    assert curve([run], "a/b", "steps_per_env").x.tolist() == [2, 4, 6, 8]
    assert curve([run], "a/b", "seconds").x.tolist() == [2, 4, 6, 8]
    assert curve([run], "eval/mean_reward", "seconds").x.tolist() == [5]


def test_episodes_count_only_where_every_env_has_finished_them(tmp_path):
    values = np.random.default_rng(0).normal(3, 2, (6, 40))
    values[4:, 7] = np.nan  # env 7 is slow
    run = make(tmp_path / "run", [(1, {"a/b": 1})], {"score": counted(values)}, num_envs=40)
    found = curve([run], "rollout/ep_score_mean", "episodes")
    assert found.x.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(found.mean, values[:4].mean(1))
    error = values[:4].std(axis=1, ddof=1) / np.sqrt(40)
    np.testing.assert_allclose(found.high, values[:4].mean(1) + 1.96 * error)
    np.testing.assert_allclose(found.low, values[:4].mean(1) - 1.96 * error)
    assert curve([run], "score", "episodes").mean.tolist() == found.mean.tolist()


@pytest.mark.parametrize("n", [2, 3, 4, 5, 11])
def test_several_runs_have_the_interquartile_mean_and_its_bootstrap_interval(tmp_path, n):
    values = np.random.default_rng(n).standard_cauchy((n, 6))
    runs = [
        make(tmp_path / str(i), [(t, {"a/b": v}) for t, v in enumerate(row.tolist())], seed=i)
        for i, row in enumerate(values)
    ]
    found = curve(runs, "a/b")
    drawn = np.random.default_rng(0).integers(n, size=(curves.RESAMPLES, n))
    for t, column in enumerate(np.sort(values, axis=0).T):
        assert found.mean[t] == pytest.approx(evaluate.interquartile_mean(column))
        middles = [evaluate.interquartile_mean(column[picked]) for picked in drawn]
        expected = np.quantile(middles, [0.025, 0.975])
        np.testing.assert_allclose([found.low[t], found.high[t]], expected)
    assert found.num_runs == n
    assert found.about.startswith(f"{'IQM' if n >= 4 else 'mean'} of {n} runs")
    # The negative control: with outliers, the mean is something else.
    assert np.allclose(found.mean, values.mean(0)) == (n < 4)


def test_interval_of_fewer_than_four_runs_is_that_of_evaluations():
    column = np.array([1.0, 4.0, 9.0])
    low, high = curves.bootstrap(column[:, None])
    assert (low[0], high[0]) == evaluate.bootstrap_interval(column, curves.RESAMPLES)


def test_runs_logged_at_other_moments_meet_as_far_as_the_shortest_goes(tmp_path):
    one = make(tmp_path / "one", [(t, {"a/b": 2.0 * t}) for t in (0, 10, 20, 30)])
    two = make(tmp_path / "two", [(t, {"a/b": 4.0 * t}) for t in (5, 15, 25)], seed=1)
    found = curve([one, two], "a/b")
    assert found.x.tolist() == [5, 10, 15, 20, 25]
    np.testing.assert_allclose(found.mean, 3 * found.x)


def test_a_common_grid_does_not_grow_beyond_measure(tmp_path):
    runs = []
    for i in range(3):
        lines = [(t, {"a/b": float(t)}) for t in range(i, 3000, 5)]
        runs.append(make(tmp_path / str(i), lines, seed=i))
    found = curve(runs, "a/b")
    assert len(found.x) == curves.MAX_POINTS
    np.testing.assert_allclose(found.mean, found.x)


def test_moving_average_is_of_the_neighbours_and_of_fewer_at_the_ends():
    values = np.random.default_rng(0).normal(size=20)
    for span in (1, 2, 3, 6):
        before, after = (span - 1) // 2, span // 2
        expected = [values[max(i - before, 0) : i + after + 1].mean() for i in range(20)]
        np.testing.assert_allclose(curves.moving(values, span), expected)


def test_first_points_are_taken_before_they_are_smoothed(tmp_path):
    run = make(tmp_path / "run", [(t, {"a/b": float(t)}) for t in range(10)])
    assert curve([run], "a/b", first=3, smooth=3).mean.tolist() == [0.5, 1, 1.5]


def test_runs_that_differ_in_the_seed_only_belong_together(tmp_path):
    settings = [(0, 0.1), (1, 0.1), (0, 0.5), (1, 0.5)]
    runs = [make(tmp_path / f"{s}{a}", seed=s, step_size=a, other=3) for s, a in settings]
    found = group(runs)
    assert found == {"td step_size=0.1": runs[:2], "td step_size=0.5": runs[2:]}
    assert list(group(runs[:2])) == ["td"]


def test_labels_are_as_short_as_tells_the_groups_apart(tmp_path):
    kinds = [
        {"name": "dqn", "n_step": 1, "double": False},
        {"name": "dqn", "n_step": 3, "double": False},
        {"name": "dqn", "n_step": 3, "double": True},
        {"name": "sarsa", "step_size": 0.5},
    ]
    runs = [make(tmp_path / str(i), **kind) for i, kind in enumerate(kinds)]
    labels = ["dqn n_step=1", "dqn n_step=3 no double", "dqn n_step=3 double", "sarsa"]
    assert list(group(runs)) == labels


def test_labels_name_the_worlds_where_these_differ(tmp_path):
    pong = make(tmp_path / "pong", env={"game": "pong"}, name="dqn", step_size=1e-4)
    breakout = make(tmp_path / "breakout", env={"game": "breakout"}, name="dqn", step_size=1e-3)
    assert list(group([pong, breakout])) == ["dqn pong", "dqn breakout"]


def test_a_study_is_the_mean_of_the_first_points_for_each_value(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 8, 30)) * [[[1]], [[2]], [[3]]]
    runs = [
        make(tmp_path / str(i), [], {"rms_error": counted(kind)}, num_envs=30)
        for i, kind in enumerate(values)
    ]
    points = [(value, [run]) for value, run in zip([1.0, 0.25, 0.5], runs, strict=True)]
    found = study({"td": points}, "rms_error", first=5)["td"]
    assert found.x.tolist() == [0.25, 0.5, 1.0]
    np.testing.assert_allclose(found.mean, values[[1, 2, 0], :5].mean((1, 2)))
    halves = 1.96 * values[[1, 2, 0], :5].std(axis=2, ddof=1).mean(1) / np.sqrt(30)
    np.testing.assert_allclose(found.high - found.mean, halves)
    assert not np.allclose(found.mean, study({"td": points}, "rms_error")["td"].mean)


def test_interval_of_a_study_covers_learners_that_keep_their_luck(tmp_path):
    """And would not, were the points taken for independent."""
    luck = np.random.default_rng(0).normal(size=30)
    run = make(tmp_path / "run", [], {"score": counted(np.tile(luck, (8, 1)))}, num_envs=30)
    found = study({"td": [(1.0, [run])]}, "score")["td"]
    exact = 1.96 * luck.std(ddof=1) / np.sqrt(30)
    np.testing.assert_allclose(found.high - found.mean, exact)
    assert exact > 2 * exact / np.sqrt(8)


def test_several_runs_of_a_value_are_one_point_of_a_study(tmp_path):
    runs = [make(tmp_path / str(i), [(1, {"a/b": float(i)})], seed=i) for i in range(5)]
    found = study({"td": [(2.0, runs)]}, "a/b")["td"]
    assert found.mean.tolist() == [2.0]
    low, high = curves.bootstrap(np.arange(5.0)[:, None])
    assert (found.low[0], found.high[0]) == (low[0], high[0])


def test_a_mistake_says_what_there_is(tmp_path):
    run = make(tmp_path / "run", [(1, {"rollout/reward": 1.0})], {"score": np.ones((1, 3))})
    empty = make(tmp_path / "empty")
    with pytest.raises(Mistake, match=r"empty has logged nothing yet"):
        curve([run, empty], "rollout/reward")
    with pytest.raises(Mistake, match=r"no metric 'rollout/rewrd'; did you mean 'rollout/reward'"):
        curve([run], "rollout/rewrd")
    with pytest.raises(Mistake, match=r"no metric 'xyz'; it has rollout/reward, score"):
        curve([run], "xyz")
    with pytest.raises(Mistake, match=r"does not know 'reward' by episode, but score"):
        curve([run], "rollout/reward", "episodes")
    with pytest.raises(Mistake, match=r"'score' is known by episode only"):
        curve([run], "score", "seconds")
    with pytest.raises(Mistake, match=r"has not logged its time"):
        curve([run], "rollout/reward", "seconds")


def test_runs_that_never_met_are_a_mistake(tmp_path):
    one = make(tmp_path / "one", [(1, {"a/b": 1.0})])
    two = make(tmp_path / "two", [(2, {"a/b": 1.0})], seed=1)
    with pytest.raises(Mistake, match="never logged at the same time"):
        curve([one, two], "a/b")
