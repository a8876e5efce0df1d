"""What goes wrong on the user's side, with every agent that learns by a network from play: one
clear sentence on the command line, the right exit code, and nothing good is lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from rlplay import checkpoint
from rlplay.__main__ import run_verb

ACTIONS = {
    "two": Discrete(2),
    "grid": MultiDiscrete([2, 3]),
    "arm": Box(-1, 1, (1,)),
    "endless": Box(-np.inf, np.inf, (1,)),
}
NETWORK = "encoder: {name: mlp, hidden: [8]}, hidden: 0, device: cpu"
MEMORY = f"name: dqn, {NETWORK}, replay_size: 200, batch_size: 8, steps_per_update: 4"
OWN = {
    "reinforce": f"name: reinforce, {NETWORK}, horizon: 4",
    "a2c": f"name: a2c, {NETWORK}, horizon: 4",
    "ppo": f"name: ppo, {NETWORK}, horizon: 4, batch_size: 8",
    "ppo, lstm": f"name: ppo, {NETWORK}, horizon: 4, batch_size: 8, recurrent: {{name: lstm}}",
    "pqn": f"name: pqn, {NETWORK}, horizon: 4, batch_size: 8",
    "dqn": f"{MEMORY}, learning_starts: 8",
    "dqn, lstm": f"{MEMORY}, learning_starts: 8, recurrent: {{name: lstm}}, sequence_length: 4",
}
ROLLOUT = "n_steps: 4, batch_size: 4"
REPLAY = "learning_starts: 8, batch_size: 8, buffer_size: 200"
HYPERPARAMETERS = {
    "ppo": f"{ROLLOUT}, n_epochs: 1",
    "maskable_ppo": f"{ROLLOUT}, n_epochs: 1",
    "recurrent_ppo": f"{ROLLOUT}, n_epochs: 1",
    "trpo": f"{ROLLOUT}, n_critic_updates: 1",
    "a2c": "n_steps: 4",
    **dict.fromkeys(("dqn", "qr_dqn", "sac", "td3", "ddpg", "tqc"), REPLAY),
}
CONTINUOUS = ("sac", "td3", "ddpg", "tqc")
FOREIGN = {
    name: f"name: sb3, algorithm: {name}, device: cpu, hyperparameters: {{{given}}}"
    for name, given in HYPERPARAMETERS.items()
}
EVERY = {**OWN, **{f"sb3 {name}": given for name, given in FOREIGN.items()}}


class World(gymnasium.Env):
    """Shows nothing, pays 1 a step and, from its step number `ill` on, what is no number."""

    observation_space = Box(-1, 1, (2,), np.float32)
    ill = 10**9

    def __init__(self, actions: str = "two") -> None:
        self.action_space = ACTIONS[actions]
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        reward = np.nan if self.steps >= self.ill else 1.0
        return np.zeros(2, np.float32), reward, self.steps % 5 == 0, False, {}


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    gymnasium.register("BadInput-v0", entry_point=World)
    yield
    del gymnasium.registry["BadInput-v0"]


@pytest.fixture
def train(tmp_path: Path, monkeypatch) -> Callable[..., int]:
    """`rlplay train` for 80 agent steps, in runs/; return the exit code."""
    monkeypatch.chdir(tmp_path)

    def train(agent: str, actions: str = "two", *flags: str) -> int:
        Path("tiny.yaml").write_text(
            "env: {name: gymnasium, id: BadInput-v0, num_envs: 2, options: {actions: "
            f"{actions}}}}}\nagent: {{{agent}}}\nnum_steps: 80\nlog_every: 20"
            "\ncheckpoint: {every: 20}\nevaluation: {num_episodes: 0}\nrecording: {max_steps: 0}\n"
        )
        return run_verb(["train", "tiny.yaml", *flags])

    return train


def refused(code: int, capsys) -> str:
    """Return the one sentence of a user's mistake, before which nothing was begun."""
    printed = capsys.readouterr()
    assert code == 2
    assert printed.err.startswith("rlplay: ")
    assert printed.err.count("\n") == 1
    assert not Path("runs").exists()
    return printed.err


WRONG_ACTIONS = [
    *((name, actions) for name in OWN if "qn" in name for actions in ("grid", "arm", "endless")),
    *((name, "endless") for name in OWN if "qn" not in name),
    *((f"sb3 {name}", "two" if name in CONTINUOUS else "endless") for name in FOREIGN),
    *((f"sb3 {name}", "arm") for name in ("dqn", "qr_dqn", "maskable_ppo")),
    *((f"sb3 {name}", "grid") for name in ("dqn", "qr_dqn", *CONTINUOUS)),
]


@pytest.mark.parametrize(("name", "actions"), WRONG_ACTIONS)
def test_actions_that_an_algorithm_cannot_choose_from_are_refused(name, actions, train, capsys):
    said = refused(train(EVERY[name], actions), capsys)
    assert str(ACTIONS[actions]) in said
    assert "choose another" in said or "set agent.algorithm to" in said


@pytest.mark.parametrize(
    ("name", "flags", "says"),
    [
        ("ppo", ["--agent.batch-size=5"], "of 8 decisions .* set agent.batch_size=4"),
        ("ppo", ["--agent.batch-size=16"], "set agent.batch_size=8"),
        ("ppo", ["--env.num-envs=3"], "agent.batch_size 8 .* of 12 .* set agent.batch_size=6"),
        ("ppo, lstm", ["--agent.batch-size=2"], "cuts the sequences .* set agent.batch_size=4"),
        ("pqn", ["--agent.batch-size=5"], "set agent.batch_size=4"),
        ("dqn, lstm", ["--agent.batch-size=5"], "whole sequences of 4 .* set agent.batch_size=8"),
        ("dqn", ["--agent.batch-size=0"], "at least 1"),
        ("a2c", ["--agent.batch-size=5"], "the a2c agent has no setting 'batch_size'"),
        ("reinforce", ["--agent.batch-size=5"], "the reinforce agent has no setting 'batch_size'"),
        *(
            (
                f"sb3 {name}",
                ["--agent.hyperparameters.batch-size=3"],
                "does not divide .* set it to",
            )
            for name in ("ppo", "maskable_ppo", "recurrent_ppo", "trpo")
        ),
    ],
)
def test_batch_that_does_not_divide_the_rollout_is_refused(name, flags, says, train, capsys):
    assert_says(refused(train(EVERY[name], "two", *flags), capsys), says)


@pytest.mark.parametrize(
    ("name", "flags", "says"),
    [
        ("dqn", ["--agent.recurrent.name=gru"], "single steps: set agent.sequence_length=16"),
        ("dqn, lstm", ["--agent.sequence-length=1"], "single steps: set agent.sequence_length=16"),
        ("dqn, lstm", ["--agent.prioritized"], "set agent.prioritized=false"),
        ("dqn, lstm", ["--agent.recurrent.name=none"], "set agent.recurrent.name=lstm"),
        ("pqn", ["--agent.recurrent.name=lstm"], "the pqn agent has no setting 'recurrent'"),
        ("sb3 dqn", ["--agent.recurrent.name=lstm"], "the sb3 agent has no setting 'recurrent'"),
        ("sb3 dqn", ["--agent.policy=lstm"], "must be 'auto', 'mlp' or 'cnn'"),
    ],
)
def test_memory_and_replay_that_do_not_go_together_are_refused(name, flags, says, train, capsys):
    assert_says(refused(train(EVERY[name], "two", *flags), capsys), says)


def assert_says(said: str, pattern: str) -> None:
    assert re.search(pattern, said), said


def newest() -> tuple[Path, dict]:
    """Return the folder of the only run, and its newest checkpoint."""
    [folder] = Path("runs").iterdir()
    return folder, checkpoint.newest(folder / "checkpoints", pytest.fail)[1]


@pytest.mark.parametrize("name", EVERY)
def test_reward_that_is_no_number_ends_the_run_and_the_last_checkpoint_goes_on(
    name, train, capsys, monkeypatch
):
    actions = "arm" if name.removeprefix("sb3 ") in CONTINUOUS else "two"
    monkeypatch.setattr(World, "ill", 26)  # and 5 new episodes: at agent step 62
    assert train(EVERY[name], actions) == 1
    said = capsys.readouterr().out
    [stopped] = [line for line in said.splitlines() if line.startswith("stopped: ")]
    assert "a reward is not finite" in stopped
    folder, parts = newest()
    with np.load(folder / "nonfinite_batch.npz", allow_pickle=False) as batch:
        assert np.isnan(batch["reward"]).any()
    assert 40 <= parts["train"]["steps"] < 62
    assert finite(parts), "the harm was saved"
    monkeypatch.setattr(World, "ill", 10**9)
    assert run_verb(["resume", str(folder)]) == 0
    assert newest()[1]["train"]["steps"] >= 80
    assert finite(newest()[1])


def finite(state: object) -> bool:
    """Tell whether all numbers that were saved are finite."""
    if isinstance(state, dict):
        return all(map(finite, state.values()))
    if isinstance(state, np.ndarray) and state.dtype.kind == "f":
        return bool(np.isfinite(state).all())
    return True


def test_reward_that_is_no_number_is_not_kept_by_a_memory_that_is_not_yet_learned_from(
    train, capsys, monkeypatch
):
    monkeypatch.setattr(World, "ill", 4)
    assert train(OWN["dqn"], "two", "--agent.learning-starts=70") == 1
    assert "a reward is not finite" in capsys.readouterr().out
    assert list(Path("runs").glob("*/checkpoints/*")) == []
