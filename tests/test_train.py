"""Laws of rlplay/train.py: a killed run goes on as if nothing had happened, the log counts right,
and what was good is kept."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from rlplay import checkpoint, config, run, train
from rlplay.config import Experiment
from rlplay.core import Agent, Array, State, Step
from rlplay.train import Training

CARTPOLE = """
env: {name: gymnasium, id: CartPole-v1, num_envs: 2}
agent:
  name: dqn
  encoder: {name: mlp, hidden: [16]}
  hidden: 8
  learning_rate: 1e-3
  batch_size: 8
  steps_per_update: 4
  target_every: 60
  learning_starts: 50
  replay_size: 300
  epsilon_steps: 500
  device: cpu
num_steps: 800
log_every: 100
evaluation: {num_episodes: 1, num_envs: 1, max_steps: 5}
recording: {max_steps: 2}
checkpoint: {every: 150}
"""
PLAIN: list[str] = []
ALL_PARTS = ["--agent.double", "--agent.dueling", "--agent.n-step=3", "--agent.prioritized"]
NEVER = ["--checkpoint.every=1000000"]


class Wild(gymnasium.Env):
    """Ends at random, whatever the seed, so it can be saved by nobody."""

    observation_space = Box(0, 1, (1,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, random.random() < 0.1, False, {}


class Poison(gymnasium.Env):
    """Pays 1 a step, and after 300 steps something that is no number."""

    observation_space = Box(0, 1, (1,), np.float32)
    action_space = Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), np.nan if self.steps > 300 else 1.0, False, False, {}


@pytest.fixture(autouse=True)
def every_line_is_printed(monkeypatch):
    monkeypatch.setattr("rlplay.session.PAUSE", 0)


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    gymnasium.register("Wild-v0", entry_point=Wild, nondeterministic=True)
    gymnasium.register("Poison-v0", entry_point=Poison)
    yield
    del gymnasium.registry["Wild-v0"], gymnasium.registry["Poison-v0"]


class Killed(BaseException):
    """What a process feels of a kill -9."""


class Session(Training):
    """A training that remembers what it said, and is killed after the log line of step `last`."""

    last = -1

    def __init__(self, experiment: Experiment) -> None:
        self.said: list[str] = []
        super().__init__(experiment, self.said.append)

    def write_log(self) -> None:
        super().write_log()
        if self.steps == self.last:
            raise Killed


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[[list[str]], Experiment]:
    path = tmp_path / "tiny.yaml"
    path.write_text(CARTPOLE)
    return lambda flags: config.load(str(path), flags)


def start(experiment: Experiment, root: Path) -> Session:
    """Make a training and its run folder, as `rlplay train` does."""
    session = Session(experiment)
    session.folder = run.create(experiment, session.env.spec, root)
    return session


def resumed(session: Session) -> Session:
    """Make a training that goes on where another one's folder stands, as `rlplay resume` does."""
    again = Session(session.experiment)
    again.folder = session.folder
    again.restore(checkpoint.newest(again.folder.checkpoints, again.announce)[1])
    return again


def killed(experiment: Experiment, root: Path, last: int) -> Session:
    session = start(experiment, root)
    session.last = last
    with pytest.raises(Killed):
        session.run(session.folder)
    return session


def finished(session: Session) -> Session:
    assert session.run(session.folder) == 0
    return session


def end(session: Session) -> dict[str, State]:
    """Return the last checkpoint of a run, without the clock."""
    parts = checkpoint.newest(session.folder.checkpoints, pytest.fail)[1]
    return {**parts, "train": {k: v for k, v in parts["train"].items() if k != "seconds"}}


def log_of(folder: run.Run) -> list[dict[str, Any]]:
    """Return the lines of a run's log, without the clock."""
    lines = run.read_lines(folder.folder / "metrics.jsonl")
    clock = ("time/fps", "time/time_elapsed")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def differing(left: Any, right: Any, path: str = "") -> list[str]:
    """Return the paths at which two saved states are not bitwise the same."""
    if isinstance(left, dict) and isinstance(right, dict):
        keys = sorted({*left, *right})
        pairs = [(left.get(key), right.get(key), f"{path}/{key}") for key in keys]
        return [found for pair in pairs for found in differing(*pair)]
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        alike = (left.dtype, left.shape) == (right.dtype, right.shape)
        return [] if alike and left.tobytes() == right.tobytes() else [path]
    return [] if type(left) is type(right) and left == right else [path]


# --- resume ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [PLAIN, ALL_PARTS], ids=["plain", "all parts"])
def test_killed_and_resumed_run_is_bitwise_the_uninterrupted_one(experiment, tmp_path, flags):
    straight = finished(start(experiment(flags), tmp_path))
    victim = killed(experiment(flags), tmp_path, last=500)
    assert checkpoint.names(victim.folder.checkpoints)[-1] == "000000452"
    again = finished(resumed(victim))

    assert differing(end(straight), end(again)) == []
    assert {*end(again)} == {"weights", "replay", "agent", "env", "train"}
    assert end(again)["agent"]["num_updates"] > 150
    assert log_of(straight.folder) == log_of(again.folder)
    # Negative control: the comparison sees another seed.
    other = finished(start(experiment([*flags, "--seed=1"]), tmp_path))
    assert {path.split("/")[1] for path in differing(end(straight), end(other))} == {*end(other)}


def test_memory_left_out_of_the_checkpoint_is_announced_and_missed(experiment, tmp_path):
    flags = ["--checkpoint.replay-gigabytes=0"]
    straight = finished(start(experiment(flags), tmp_path))
    again = resumed(killed(experiment(flags), tmp_path, last=500))
    assert [text for text in again.said if "memory" in text and "starts empty" in text]
    assert len(again.agent.replay) == 0
    finished(again)
    assert any(path.startswith("/weights") for path in differing(end(straight), end(again)))
    assert end(again)["train"]["steps"] == end(straight)["train"]["steps"] == 800


def test_memory_that_was_saved_is_not_announced_as_empty(experiment, tmp_path):
    again = resumed(killed(experiment(PLAIN), tmp_path, last=300))
    assert again.said == []
    assert len(again.agent.replay) == 152


def test_log_after_resume_has_every_step_once(experiment, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    victim = killed(experiment(PLAIN), tmp_path, last=500)
    metrics = victim.folder.folder / "metrics.jsonl"
    assert [line["step"] for line in run.read_lines(metrics)] == [100, 200, 300, 400, 500]
    with metrics.open("a") as file:
        file.write('{"step": 600, "train/lo')  # a kill in the middle of a line
    again = finished(resumed(victim))

    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    training = [line["step"] for line in lines if "train/loss" in line]
    assert training == [100, 200, 300, 400, 500, 600, 700, 800]
    assert [line["step"] for line in lines if "eval/mean_reward" in line] == [800]
    events = EventAccumulator(str(again.folder.folder), size_guidance={"scalars": 0}).Reload()
    shown = events.Scalars("rollout/ep_len_mean")
    assert [event.step for event in shown] == training
    assert [event.value for event in shown] == pytest.approx(
        [line["rollout/ep_len_mean"] for line in lines if "train/loss" in line]
    )


def test_world_that_cannot_be_saved_starts_anew_and_the_memory_knows(experiment, tmp_path):
    settings = experiment(["--env.id=Wild-v0", "--checkpoint.every=100"])
    was_over = []
    for attempt in range(4):  # its chance has no seed: all episodes may just have ended
        victim = killed(settings, tmp_path / str(attempt), last=300)
        again = resumed(victim)
        assert [text for text in again.said if "start anew" in text]
        assert not again.episodes.running.any()
        newest = (again.agent.replay.num_added - 2) % again.agent.replay.capacity
        assert again.agent.replay.over_here[newest : newest + 2].all()
        was_over.append(end(victim)["replay"]["over"][newest : newest + 2].all())
        if not was_over[-1]:
            break
    # Negative control: when it was saved, it was not over.
    assert not all(was_over)
    assert finished(again).steps == 800


def test_longer_training_may_be_asked_of_a_finished_run(experiment, tmp_path):
    half = finished(start(experiment([*ALL_PARTS, "--num-steps=400"]), tmp_path))
    half.experiment = experiment(ALL_PARTS)
    again = finished(resumed(half))
    straight = finished(start(experiment(ALL_PARTS), tmp_path))
    found = differing(end(straight), end(again))
    # Only the best evaluation so far may differ, for the short run made one more.
    assert [path for path in found if path != "/train/best"] == []


def test_real_kill_at_a_random_moment_changes_nothing(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(CARTPOLE)
    flags = [*ALL_PARTS, "--num-steps=3000", "--log-every=200"]
    rlplay = [sys.executable, "-m", "rlplay"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    runs = tmp_path / "runs"
    process = subprocess.Popen(
        [*rlplay, "train", str(path), *flags, "--runs", str(runs)],
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    while not list(runs.glob("*/checkpoints/0*")):
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(delay := random.uniform(0, 0.3))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    folder = run.find("last", runs)
    stood = checkpoint.names(folder.checkpoints)
    assert stood[-1] < "000003000"
    code = subprocess.run(
        [*rlplay, "resume", "last", "--runs", str(runs)],
        stdout=subprocess.DEVNULL,
        env=environment,
        check=False,
    ).returncode
    assert code == 0

    straight = finished(start(config.load(str(path), flags), tmp_path / "straight"))
    ended = checkpoint.load(folder.checkpoints / "000003000")
    ended["train"].pop("seconds")
    assert differing(end(straight), ended) == [], f"killed {delay} s after {stood}"
    assert log_of(straight.folder) == log_of(folder)


# --- ends that are not kills -------------------------------------------------------------------


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_where_it_stands_and_nothing_is_lost(experiment, tmp_path, kind):
    settings = experiment([*ALL_PARTS, *NEVER])
    straight = finished(start(settings, tmp_path))
    training = start(settings, tmp_path)
    before = signal.getsignal(kind)

    def interrupt(sentence: str) -> None:
        if sentence.split()[0] == "300":
            os.kill(os.getpid(), kind)

    training.announce = interrupt
    assert training.run(training.folder) == 128 + kind
    assert signal.getsignal(kind) == before
    assert checkpoint.names(training.folder.checkpoints) == ["000000300"]
    assert not training.folder.recordings.exists()
    again = finished(resumed(training))
    assert differing(end(straight), end(again)) == []
    assert log_of(straight.folder) == log_of(again.folder)


def test_signal_before_the_first_step_saves_the_start(experiment, tmp_path, monkeypatch):
    session, opened = start(experiment([]), tmp_path), run.Log

    def interrupted(*given):
        os.kill(os.getpid(), signal.SIGINT)
        return opened(*given)

    monkeypatch.setattr(run, "Log", interrupted)
    assert session.run(session.folder) == 130
    assert resumed(session).steps == 0


@pytest.mark.parametrize("with_signal", [True, False])
def test_world_that_the_same_signal_ends_is_no_bug(experiment, tmp_path, with_signal):
    training = start(experiment(PLAIN), tmp_path)
    step, count = training.env.step, itertools.count()

    def dying(action: Array) -> Step:
        if next(count) < 60:
            return step(action)
        if with_signal:
            os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("the world is gone")

    training.env.step = dying
    if with_signal:
        assert training.run(training.folder) == 130
        assert checkpoint.names(training.folder.checkpoints) == [f"{training.steps:09d}"]
    else:
        with pytest.raises(RuntimeError):
            training.run(training.folder)


def test_signal_breaks_off_an_evaluation_and_saves_first(experiment, tmp_path, monkeypatch):
    def endless(experiment: Experiment, agent: Agent) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr(train, "score", endless)
    training = start(experiment([*NEVER, "--evaluate-every=200"]), tmp_path)
    started = time.monotonic()
    assert training.run(training.folder) == 143
    assert time.monotonic() - started < 30
    assert checkpoint.names(training.folder.checkpoints) == ["000000200"]


def test_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(
    experiment, tmp_path
):
    training = start(experiment(["--env.id=Poison-v0", "--env.num-envs=1"]), tmp_path)
    assert training.run(training.folder) == 1
    assert training.steps == 300
    with np.load(training.folder.folder / "nonfinite_batch.npz", allow_pickle=False) as batch:
        assert np.isnan(batch["reward"]).any()
    _, parts = checkpoint.newest(training.folder.checkpoints, pytest.fail)
    assert parts["train"]["steps"] == 300
    assert all(np.isfinite(array).all() for array in parts["weights"].values())
    assert "not finite" in training.said[-1]


# --- the log -----------------------------------------------------------------------------------


def test_every_is_counted_by_multiples_passed_whatever_the_stride():
    training = SimpleNamespace(steps=0)
    due = []
    for steps in range(0, 100, 7):
        before, training.steps = training.steps, steps
        if Training.passed(training, before, 20):
            due.append(steps)
        assert not Training.passed(training, before, 0)
    assert due == [21, 42, 63, 84]


# --- the best ----------------------------------------------------------------------------------


def test_best_checkpoint_is_of_the_best_evaluation_and_is_never_pruned(
    experiment, tmp_path, monkeypatch
):
    means = iter([3.0, 9.0, 9.0, 4.0, 5.0, 10.0])

    def scored(experiment: Experiment, agent: Agent) -> Any:
        mean = next(means)
        summary = {"mean": mean, "median": mean, "ci_low": mean, "ci_high": mean}
        return SimpleNamespace(
            summary=lambda: summary, scores=[mean], stalled=np.zeros(1), opponent=""
        )

    monkeypatch.setattr(train, "score", scored)
    flags = ["--evaluate-every=200", "--checkpoint.every=100", "--checkpoint.keep=1"]
    victim = killed(experiment(flags), tmp_path, last=700)  # evaluated 3, 9, 9
    best = victim.folder.checkpoints / "best"
    assert checkpoint.load(best)["train"]["steps"] == 400
    assert "replay" not in checkpoint.load(best)
    assert checkpoint.load(best)["train"]["replay_left_out"] is True

    again = finished(resumed(victim))  # 4 at the end
    assert checkpoint.names(again.folder.checkpoints) == ["000000800"]
    assert checkpoint.load(best)["train"]["steps"] == 400
    assert again.best == 9
    longer = start(experiment(flags), tmp_path / "other")  # 5, 10: the last one is the best one
    longer.experiment = experiment([*flags, "--num-steps=400"])
    finished(longer)
    assert checkpoint.load(longer.folder.checkpoints / "best")["train"]["steps"] == 400
