"""Laws of playing ahead (rlplay/play.py: Ahead, and the training that uses it): which data is
learned from depends on no clock, and no kill, signal or error loses any of it."""

from __future__ import annotations

import os
import signal
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from agents import a2c, ppo, pqn
from envs import gymnasium as worlds
from envs import random_walk, tictactoe
from rlplay import checkpoint, config, run
from rlplay.core import Array, Mistake, Step, Trajectory
from rlplay.nets import encoders
from rlplay.nets.recurrent import Config as Recurrent
from rlplay.play import Ahead, Moment, collect, packed, play, unpacked
from rlplay.train import Training

SMALL: dict[str, Any] = {
    "encoder": encoders.Config(name="mlp", hidden=(8,)),
    "hidden": 8,
    "horizon": 8,
    "learning_rate": 0.02,
    "device": "cpu",
}
AGENTS: dict[str, Any] = {
    "a2c": a2c.Config(**SMALL),
    "ppo": ppo.Config(**SMALL, batch_size=8, normalize_observations=True, normalize_rewards=True),
    "ppo that remembers": ppo.Config(**SMALL, batch_size=8, recurrent=Recurrent("gru", 4)),
    "pqn": pqn.Config(**SMALL, batch_size=8, epsilon_steps=200),
}
every_agent = pytest.mark.parametrize("name", AGENTS)


def made(name: str) -> tuple[Any, Any]:
    env = worlds.Config(num_envs=2).make()
    return env, AGENTS[name].make(env.spec, 0)


def plain(trajectory: Trajectory) -> list[bytes]:
    step, decision = trajectory
    leaves = [*step._asdict().values(), decision.action, *decision.notes.values()]
    return [leaf.tobytes() for leaf in leaves if leaf is not None]


def in_a_thread(name: str, slow: str) -> tuple[list[list[bytes]], Array]:
    """Learn from 8 horizons, with the playing or the learning held up; return them and
    the random numbers at the end."""
    env, agent = made(name)
    step = env.step
    if slow == "playing":
        env.step = lambda action: (time.sleep(0.001), step(action))[1]
    moments = Ahead(env, agent, env.reset(0), agent.horizon)
    seen = []
    for _ in range(8):
        trajectory = collect(moments, agent.horizon)
        if slow == "learning":
            time.sleep(0.01)
        agent.learn(trajectory)
        seen.append(plain(trajectory))
    moments.close()
    return seen, weights(agent)


def one_after_the_other(name: str, lag: bool = True) -> tuple[list[list[bytes]], Array]:
    """The same without a thread: horizon k + 1 is played before horizon k is learned from or, with
    no `lag`, after."""
    env, agent = made(name)
    moments = play(env, agent.actor() if lag else agent, env.reset(0))
    coming, seen = collect(moments, agent.horizon), []
    for _ in range(8):
        trajectory = coming
        if lag:
            agent.actor()
            coming = collect(moments, agent.horizon)
        agent.learn(trajectory)
        if not lag:
            coming = collect(moments, agent.horizon)
        seen.append(plain(trajectory))
    return seen, weights(agent)


def weights(agent: Any) -> Array:
    found = agent.state_dict()["weights"]
    return np.concatenate([found[name].ravel() for name in sorted(found)])


@every_agent
def test_data_is_that_of_the_same_schedule_without_a_thread(name):
    expected, expected_weights = one_after_the_other(name)
    for slow in ("playing", "learning"):
        seen, found = in_a_thread(name, slow)
        assert seen == expected, slow
        assert found.tobytes() == expected_weights.tobytes()
    # Negative control: played by the newest weights, it is other data from horizon 1 on.
    others, other_weights = one_after_the_other(name, lag=False)
    assert others[0][:-1] == expected[0][:-1]
    assert others[1] != expected[1]
    assert other_weights.tobytes() != expected_weights.tobytes()


def test_next_horizon_is_played_by_another_thread_while_the_last_one_is_learned_from():
    env, agent = made("ppo")
    step, threads = env.step, []
    env.step = lambda action: (threads.append(threading.get_ident()), step(action))[1]
    moments = Ahead(env, agent, env.reset(0), agent.horizon)
    collect(moments, agent.horizon)
    moments.collected()
    assert len(threads) == 2 * agent.horizon
    assert threading.get_ident() not in threads
    moments.close()


def test_what_was_played_ahead_can_be_taken_out_and_put_back():
    def stream(parts: list[int]) -> list[bytes]:
        env, agent = made("a2c")
        moments, seen = Ahead(env, agent, env.reset(0), 8), []
        for count in parts:
            taken = list(islice(moments, count))
            seen += [moment.following.observation.tobytes() for moment in taken]
            kept = moments.collected()
            moments.close()
            standing = kept[-1].following
            moments = Ahead(env, agent, standing, 8, unpacked(packed(kept)))
        moments.close()
        return seen

    whole = stream([40])
    assert stream([8, 8, 24]) == whole
    assert stream([3, 10, 1, 26]) == whole


@pytest.mark.parametrize("kind", ["measures", "states", "nothing"])
def test_packed_moments_are_the_same_moments(kind, tmp_path):
    env: Any = {
        "measures": random_walk.Config(num_envs=2),
        "states": tictactoe.Config(num_envs=2),
        "nothing": worlds.Config(num_envs=2),
    }[kind].make()
    agent = config.player("uniform").make(env.spec, 0)
    moments = list(islice(play(env, agent, env.reset(0)), 7))
    checkpoint.save(tmp_path, "1", {"ahead": packed(moments)})
    again = unpacked(checkpoint.load(tmp_path / "1")["ahead"])
    assert [leaves(moment) for moment in again] == [leaves(moment) for moment in moments]
    assert unpacked(packed([])) == []


def leaves(moment: Moment) -> list[Any]:
    steps = [moment.step._replace(measures=None), moment.following]
    arrays = [leaf for step in steps for leaf in step[:-1]] + [moment.decision.action]
    named = [moment.following.measures or {}, moment.decision.notes]
    arrays += [part[name] for part in named for name in sorted(part)]
    return [None if leaf is None else (leaf.dtype, leaf.tobytes()) for leaf in arrays]


def test_error_of_the_world_comes_out_where_its_horizon_would_be_taken():
    env, agent = made("a2c")
    step, count = env.step, iter(range(20))

    def dying(action: Array) -> Step:
        if next(count) == 12:
            raise RuntimeError("the world is gone")
        return step(action)

    env.step = dying
    moments = Ahead(env, agent, env.reset(0), 8)
    assert len(list(islice(moments, 8))) == 8
    with pytest.raises(RuntimeError, match="the world is gone"):
        next(moments)
    assert moments.collected() == []
    moments.close()


@pytest.mark.parametrize("name", ["dqn", "reinforce", "q_learning", "uniform"])
def test_agent_that_cannot_is_refused_in_one_sentence(name, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(
        f"env: {{name: gridworld}}\nagent: {{name: {name}}}\ncollect_ahead: true\n"
        if name in ("q_learning", "uniform")
        else f"agent: {{name: {name}, encoder: {{name: mlp}}}}\nenv: {{name: gymnasium}}\n"
        "collect_ahead: true\n"
    )
    flags = ["--agent.replay-size=60000"] if name == "dqn" else []
    with pytest.raises(Mistake, match="collect_ahead=false") as said:
        Training(config.load(str(path), flags), print)
    assert len(str(said.value).splitlines()) == 1


# --- in a training -----------------------------------------------------------------------------

TINY = """
env: {name: gymnasium, id: CartPole-v1, num_envs: 2}
agent: {name: ppo, encoder: {name: mlp, hidden: [8]}, hidden: 8, horizon: 8, batch_size: 8,
  learning_rate: 0.01, normalize_observations: true, normalize_rewards: true, device: cpu}
collect_ahead: true
num_steps: 480
log_every: 80
evaluation: {num_episodes: 1, num_envs: 1, max_steps: 5}
recording: {max_steps: 2}
checkpoint: {every: 160}
"""
OTHERS = {
    "ppo": [],
    "ppo that remembers": ["--agent.recurrent.name=lstm", "--agent.recurrent.size=4"],
    "pqn": ["--agent.name=pqn", "--agent.encoder.name=mlp", "--agent.hidden=8", "--agent.horizon=8",
            "--agent.batch-size=8", "--agent.device=cpu"],
}  # fmt: skip


class Stopped(BaseException):
    """What a process feels of a kill -9."""


class Session(Training):
    """A training that is killed, or gets a signal, after the log line of step `last`."""

    last, signal = -1, 0

    def write_log(self) -> None:
        super().write_log()
        if self.steps == self.last:
            if not self.signal:
                raise Stopped
            os.kill(os.getpid(), self.signal)


def session(tmp_path: Path, flags: list[str]) -> Session:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    training = Session(config.load(str(path), flags), lambda text: None)
    training.folder = run.create(training.experiment, training.env.spec, tmp_path / "runs")
    return training


def resumed(training: Session, flags: list[str], tmp_path: Path) -> Session:
    again = Session(config.load(str(tmp_path / "tiny.yaml"), flags), lambda text: None)
    again.folder = training.folder
    again.restore(checkpoint.newest(again.folder.checkpoints, pytest.fail)[1])
    return again


def end(training: Session) -> Any:
    """Return the last checkpoint and the log, without the clock."""
    parts = checkpoint.newest(training.folder.checkpoints, pytest.fail)[1]
    own = {k: v for k, v in parts["train"].items() if k not in ("seconds", "best")}
    lines = run.read_lines(training.folder.folder / "metrics.jsonl")
    clock = ("time/fps", "time/time_elapsed")
    lines = [line for line in lines if "eval/mean_reward" not in line]
    log = [{k: v for k, v in line.items() if k not in clock} for line in lines]
    return repr_of({**parts, "train": own}), log


def repr_of(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: repr_of(part) for name, part in state.items()}
    return (state.dtype, state.shape, state.tobytes()) if isinstance(state, np.ndarray) else state


@pytest.mark.parametrize("name", OTHERS)
def test_killed_and_resumed_run_is_bitwise_the_uninterrupted_one(name, tmp_path):
    straight = session(tmp_path, OTHERS[name])
    assert straight.run(straight.folder) == 0
    victim = session(tmp_path, OTHERS[name])
    victim.last = 240
    with pytest.raises(Stopped):
        victim.run(victim.folder)
    again = resumed(victim, OTHERS[name], tmp_path)
    assert len(again.played) == 8
    assert again.run(again.folder) == 0
    assert end(again) == end(straight)
    assert len(end(straight)[0]["ahead"]["action"][2]) > 0


def test_signal_loses_nothing_that_was_played_ahead(tmp_path):
    straight = session(tmp_path, [])
    assert straight.run(straight.folder) == 0
    stopped = session(tmp_path, ["--checkpoint.every=1000000"])
    stopped.last, stopped.signal = 240, signal.SIGINT
    assert stopped.run(stopped.folder) == 130
    assert checkpoint.names(stopped.folder.checkpoints) == ["000000240"]
    again = resumed(stopped, [], tmp_path)
    assert again.run(again.folder) == 0
    assert end(again) == end(straight)


class Wild(gymnasium.Env):
    """Ends at random, whatever the seed, so it can be saved by nobody."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, os.urandom(1)[0] < 26, False, {}


def test_world_that_cannot_be_saved_starts_anew(tmp_path, monkeypatch):
    registered = gymnasium.envs.registration.EnvSpec("Wild-v1", Wild, nondeterministic=True)
    monkeypatch.setitem(gymnasium.registry, "Wild-v1", registered)
    half = session(tmp_path, ["--env.id=Wild-v1", "--num-steps=240"])
    assert half.run(half.folder) == 0
    assert "ahead" not in checkpoint.newest(half.folder.checkpoints, pytest.fail)[1]
    again = resumed(half, ["--env.id=Wild-v1"], tmp_path)
    assert not again.played
    assert not again.episodes.running.any()
    assert again.run(again.folder) == 0
    assert again.steps == 480


def test_longer_training_may_be_asked_of_a_finished_run(tmp_path):
    straight = session(tmp_path, ["--agent.schedule-steps=480"])
    assert straight.run(straight.folder) == 0
    for keep in (True, False):  # the negative control: without what was played ahead
        half = session(tmp_path, ["--num-steps=240", "--agent.schedule-steps=480"])
        assert half.run(half.folder) == 0
        again = resumed(half, ["--agent.schedule-steps=480"], tmp_path)
        again.played = again.played if keep else []
        assert again.run(again.folder) == 0
        assert (end(again) == end(straight)) == keep
