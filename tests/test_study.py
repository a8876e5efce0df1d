"""Laws of rlplay/study.py and of configs with variants: several trainings and their picture."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from rlplay import checkpoint, config, study, train
from rlplay.core import Mistake

FILE = """# Three trainings.
env: {name: bandit, num_envs: 5, max_steps: 20}
agent: {name: ucb1, alpha: 3}
num_steps: 100
log_every: 5
evaluation: {num_episodes: 0}
recording: {max_steps: 0}
variants:
  UCB1: {}
  greedy:
    agent: {name: epsilon_greedy}
    sweep: {agent.epsilon: [0, 0.5]}
plot: {metrics: [rollout/reward], x: steps_per_env}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "three.yaml"
    path.write_text(FILE)
    return path


def weights(folder: Path) -> list[dict[str, np.ndarray]]:
    """Return what each training of a study has learned."""
    runs = sorted(path for path in folder.iterdir() if path.is_dir())
    return [dict(checkpoint.newest(run / "checkpoints", print)[1]["weights"]) for run in runs]


def equal(left: Path, right: Path) -> bool:
    pairs = zip(weights(left), weights(right), strict=True)
    return all((a[name] == b[name]).all() for a, b in pairs for name in a)


def test_variants_are_the_files_settings_with_their_own_laid_over(file):
    variants = config.variants(str(file))
    assert [(v.label, v.value) for v in variants] == [
        ("UCB1", None),
        ("greedy", 0),
        ("greedy", 0.5),
    ]
    agents = [variant.experiment.agent for variant in variants]
    assert [agent.name for agent in agents] == ["ucb1", "epsilon_greedy", "epsilon_greedy"]
    assert [getattr(agent, "epsilon", None) for agent in agents] == [None, 0, 0.5]
    assert getattr(agents[0], "alpha", None) == 3
    assert {variant.experiment.env.num_envs for variant in variants} == {5}


def test_flags_are_laid_over_every_variant(file):
    variants = config.variants(str(file), ["--num-steps=50", "--env.num-envs=2"])
    assert {variant.experiment.num_steps for variant in variants} == {50}
    assert {variant.experiment.env.num_envs for variant in variants} == {2}


def test_file_with_one_training_has_no_variants():
    assert config.variants("cartpole/dqn") == []


def test_study_trains_every_variant_in_a_folder_of_its_own_and_draws(file, tmp_path):
    folder, said = study.create(str(file), [], tmp_path / "runs"), []
    assert study.go(folder, said.append, ["rlplay"]) == 0
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert names == ["000-ucb1", "001-epsilon_greedy", "002-epsilon_greedy"]
    for name in names:
        assert checkpoint.names(folder / name / "checkpoints") == ["000000100"]
        assert len((folder / name / "metrics.jsonl").read_text().splitlines()) == 20
    assert [line.split(":")[0] for line in said[:3]] == [
        "[1/3] UCB1",
        "[2/3] greedy 0",
        "[3/3] greedy 0.5",
    ]
    assert {path.suffix for path in folder.iterdir() if path.is_file()} >= {".png", ".svg"}


def test_study_that_was_stopped_goes_on_where_it_stood(file, tmp_path, monkeypatch):
    whole = study.create(str(file), [], tmp_path / "whole")
    study.go(whole, print, ["rlplay"])
    stopped = study.create(str(file), [], tmp_path / "stopped")
    learn, calls = train.Training.learn, []

    def interrupted(self: train.Training) -> None:
        calls.append(self)
        if len(calls) == 2:  # in the second training, half way
            self.experiment = self.folder.experiment(["--num-steps=50"])
            learn(self)
            self.interrupt.signal = 2
            return
        learn(self)

    monkeypatch.setattr(train.Training, "learn", interrupted)
    assert study.go(stopped, print, ["rlplay"]) == 130
    assert not (stopped / "plot.png").exists()
    assert study.go(stopped, print, ["rlplay"]) == 0
    assert [training.steps for training in calls] == [100, 50, 100, 100]  # the first one only once
    assert equal(whole, stopped)


def test_study_of_other_seeds_learns_otherwise(file, tmp_path):
    """The negative control of the law above."""
    one, two = (study.create(str(file), [f"--seed={s}"], tmp_path / str(s)) for s in (0, 1))
    for folder in (one, two):
        study.go(folder, print, ["rlplay"])
    assert not equal(one, two)


def test_study_is_found_by_path_and_by_the_beginning_of_its_name(file, tmp_path):
    folder = study.create(str(file), [], tmp_path / "runs")
    assert study.find(str(folder), tmp_path) == folder
    assert study.find(folder.name[:-3], tmp_path / "runs") == folder
    assert study.find("another", tmp_path / "runs") is None
    shutil.copytree(folder, folder.with_name(folder.name + "-2"))
    assert study.find(folder.name[:-3], tmp_path / "runs") is None


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("variants: {a: 3}", "variants.a must be a group of settings, not 3"),
        ("variants: {a: {agent: {name: ucb}}}", "no agent called 'ucb'; did you mean"),
        ("variants: {a: {sweep: {agent.alpha: 1}}}", "variants.a.sweep.agent.alpha must be a list"),
        ("variants: {a: {sweep: {agent.alpha: [x]}}}", "must be a list, each a number"),
        ("variants: {a: {sweep: {seed: [1], num_steps: [2]}}}", "must vary one setting, not 2"),
        ("variants: {a: {sweep: {agent.aplha: [1]}}}", "the ucb1 agent has no setting 'aplha'"),
        ("variants: {a: {}}\nplot: {y: reward}", "plot has no setting 'y'"),
        ("variants: {a: {}}\nplot: {x: time}", "plot.x must be"),
    ],
)
def test_mistakes_in_a_study_are_told_in_one_sentence(file, tmp_path, wrong, sentence):
    file.write_text(FILE[: FILE.index("variants")] + wrong)
    with pytest.raises(Mistake) as caught:
        study.create(str(file), [], tmp_path / "runs")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "runs").glob("*/*"))


def test_one_training_is_not_loaded_from_a_file_with_several(file):
    with pytest.raises(Mistake, match="holds several trainings"):
        config.load(str(file))
