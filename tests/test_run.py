"""Laws of rlplay/run.py: runs are found, never written over, and their agents play elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from rlplay import checkpoint, config, run
from rlplay.config import Experiment
from rlplay.core import Mistake, Step
from rlplay.run import Log, Run, create, find, load
from rlplay.train import Training

CARTPOLE = """
env: {name: gymnasium, id: CartPole-v1, num_envs: 2}
agent:
  name: dqn
  encoder: {name: mlp, hidden: [16]}
  hidden: 0
  learning_starts: 20
  replay_size: 200
  batch_size: 4
  device: cpu
num_steps: 100
log_every: 50
evaluation: {num_episodes: 1, num_envs: 1, max_steps: 5}
recording: {max_steps: 2}
checkpoint: {every: 40, keep: 9}
"""


def experiment(folder: Path, *flags: str) -> Experiment:
    path = folder / "tiny.yaml"
    path.write_text(CARTPOLE)
    return config.load(str(path), flags)


def made(root: Path, name: str, time: float) -> Run:
    """Make a folder that is a run, as far as its name and age go."""
    (root / name).mkdir(parents=True)
    file = root / name / "config.yaml"
    file.write_text("")
    os.utime(file, (time, time))
    return Run(root / name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("runs")
    training = Training(experiment(root), lambda sentence: None)
    folder = create(training.experiment, training.env.spec, root)
    assert training.run(folder) == 0
    return folder


# --- finding -----------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made(tmp_path, "pong-dqn-s0-1", time=30)
    made(tmp_path, "pong-dqn-s0-1-2", time=20)
    made(tmp_path, "pong-dqn-s1-1", time=40)
    made(tmp_path, "breakout-dqn-s0-1", time=10)
    (tmp_path / "no-run").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("last", "pong-dqn-s1-1"),
        ("b", "breakout-dqn-s0-1"),
        ("pong-dqn-s1", "pong-dqn-s1-1"),
        ("pong-dqn-s0-1-", "pong-dqn-s0-1-2"),
        ("pong-dqn-s0-1", "pong-dqn-s0-1"),  # whole, though another one goes on from here
    ],
)
def test_run_is_found_by_last_or_by_a_unique_beginning(root, name, found):
    assert find(name, root).name == found


def test_run_is_found_by_its_path_from_anywhere(root, tmp_path, monkeypatch):
    path = root / "breakout-dqn-s0-1"
    assert find(str(path), Path("elsewhere")).folder == path
    assert find(f"{path}/", Path("elsewhere")).name == path.name
    monkeypatch.chdir(root)
    assert find("pong-dqn-s0-1", Path("elsewhere")).folder.resolve() == root / "pong-dqn-s0-1"


def test_ambiguous_beginning_names_those_it_could_be(root):
    with pytest.raises(Mistake) as caught:
        find("pong-dqn-s0", root)
    assert "pong-dqn-s0-1, " in str(caught.value) or "pong-dqn-s0-1;" in str(caught.value)
    assert "pong-dqn-s0-1-2" in str(caught.value)
    assert "pong-dqn-s1-1" not in str(caught.value)


def test_unknown_run_gets_the_nearest_name_and_no_runs_a_hint(root, tmp_path):
    with pytest.raises(Mistake, match=r"no run called 'braekout-dqn'.*did you mean 'breakout-dqn"):
        find("braekout-dqn", root)
    with pytest.raises(Mistake, match=r"there are no runs in .*rlplay train"):
        find("last", tmp_path / "nowhere")


# --- making ------------------------------------------------------------------------------------


def test_folder_of_a_run_is_never_used_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(run.time, "strftime", lambda form: "20260101-000000")
    settings = experiment(tmp_path)
    spec = settings.env.make().spec
    first = create(settings, spec, tmp_path / "runs")
    (first.folder / "config.yaml").write_text("mine")
    names = [first.name, *(create(settings, spec, tmp_path / "runs").name for _ in range(3))]
    stem = "cartpole-v1-dqn-s0-20260101-000000"
    assert names == [stem, f"{stem}-2", f"{stem}-3", f"{stem}-4"]
    assert (first.folder / "config.yaml").read_text() == "mine"
    other = create(experiment(tmp_path, "--seed=7"), spec, tmp_path / "runs")
    assert other.name == "cartpole-v1-dqn-s7-20260101-000000"


def test_folder_that_cannot_be_written_is_a_mistake(tmp_path):
    settings = experiment(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(Mistake, match=r"cannot write to .*--runs FOLDER"):
        create(settings, settings.env.make().spec, tmp_path / "file")


def test_run_describes_itself_well_enough_to_be_repeated(trained):
    settings = experiment(trained.folder.parent)
    assert config.load(str(trained.folder / "config.yaml")) == settings
    protocol = json.loads((trained.folder / "env.json").read_text())
    assert protocol["training"]["id"] == "CartPole-v1"
    assert protocol["evaluation"]["seed"] == settings.evaluation.seed
    assert protocol["action_space"] == "Discrete(2)"
    trained.start(["rlplay", "train", "x"])
    trained.start(["rlplay", "resume"])
    assert (trained.folder / "command.txt").read_text() == "rlplay train x\nrlplay resume\n"
    system = json.loads((trained.folder / "system.json").read_text())
    assert system["versions"]["torch"]
    assert system["cores"] >= 1


def test_state_of_a_run_is_read_from_its_log(trained):
    known = run.state(trained)
    assert known["steps"] == 100
    assert known["checkpoints"] == 3
    lines = run.read_lines(trained.folder / "metrics.jsonl")
    assert known["score"] == lines[-1]["eval/mean_reward"]
    assert run.state(made(trained.folder.parent, "new", 0))["steps"] == 0


# --- playing -----------------------------------------------------------------------------------


def test_loaded_agent_plays_in_a_plain_gymnasium_env(trained):
    player = load("last", root=trained.folder.parent)
    assert player.num_steps == 100
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    chosen, over = set(), False
    while not over:
        action = player.action(observation)
        assert type(action) is int
        chosen.add(action)
        greedy = player.agent.act(Step.at(observation[None], 2), explore=False).action[0]
        assert action == greedy == player.action(observation)
        observation, _, terminated, truncated, _ = env.step(action)
        over = terminated or truncated
    assert chosen <= {0, 1}


def test_chosen_checkpoint_is_the_one_that_is_loaded(trained):
    root = trained.folder.parent
    asked = ("", "best", "100", "40", "000000080")
    loaded = {which: load(trained.name, which, root) for which in asked}
    steps = {which: player.num_steps for which, player in loaded.items()}
    assert steps == {"": 100, "best": 100, "100": 100, "40": 40, "000000080": 80}

    def weights(player: run.Player) -> dict[str, Any]:
        named: dict[str, Any] = player.agent.descent.optimizer.weights()
        return {name: array.tolist() for name, array in named.items()}

    assert weights(loaded[""]) == weights(loaded["best"]) != weights(loaded["40"])
    saved = checkpoint.load(trained.checkpoints / "000000040")["weights"]
    assert weights(loaded["40"]) == {name: array.tolist() for name, array in saved.items()}


def test_checkpoint_that_is_not_there_is_a_mistake_that_names_those_that_are(trained):
    with pytest.raises(Mistake, match=r"no checkpoint '60'.*000000040.*000000100"):
        load(trained.name, "60", trained.folder.parent)


def test_damaged_checkpoint_that_was_asked_for_is_a_mistake(trained):
    path = trained.checkpoints / "000000080" / "weights.safetensors"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-1])
        with pytest.raises(Mistake, match="damaged"):
            load(trained.name, "80", trained.folder.parent)
    finally:
        path.write_bytes(whole)
    assert load(trained.name, "80", trained.folder.parent).num_steps == 80


# --- the log -----------------------------------------------------------------------------------


def test_log_of_a_resumed_run_forgets_what_came_after_the_checkpoint(tmp_path):
    log = Log(tmp_path, 0)
    for step in (10, 20, 30):
        log.write({"train/loss": step / 10}, step)
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "train/')
    log = Log(tmp_path, 20)
    log.write({"train/loss": 7.0}, 30)
    log.close()
    assert run.read_lines(tmp_path / "metrics.jsonl") == [
        {"step": 10, "train/loss": 1.0},
        {"step": 20, "train/loss": 2.0},
        {"step": 30, "train/loss": 7.0},
    ]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_terminal_json_and_tensorboard_show_the_same_numbers(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained.folder), size_guidance={"scalars": 0}).Reload()
    lines = run.read_lines(trained.folder / "metrics.jsonl")
    pairs = [(line["step"], name, line[name]) for line in lines for name in line if name != "step"]
    shown = [
        (event.step, tag, event.value)
        for tag in events.Tags()["scalars"]
        for event in events.Scalars(tag)
        if "/" in tag
    ]
    assert {pair[:2] for pair in pairs} <= {pair[:2] for pair in shown}
    values = {pair[:2]: pair[2] for pair in shown}
    for step, name, value in pairs:
        assert values[step, name] == pytest.approx(np.float32(value), rel=1e-6)


def test_settings_are_flat_and_plain_for_tensorboard():
    tree = {"a": {"b": 1, "c": {"d": "x", "e": (1, 2)}}, "f": None, "g": True}
    assert dict(run.flatten(tree)) == {
        "a.b": 1, "a.c.d": "x", "a.c.e": "(1, 2)", "f": "None", "g": True,
    }  # fmt: skip
