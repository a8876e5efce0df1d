"""Laws of rlplay/transfer.py: any run's encoder starts any other's, once, and what does not fit is
said before a run folder is there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rlplay import checkpoint, config, eyes, run
from rlplay.__main__ import run_verb
from rlplay.core import Array, Mistake
from rlplay.nets import backbones
from rlplay.settings import convert

LESSON = """
# A task of pictures.
data: {name: digits}
task: {name: classify, hidden: 0, encoder: {name: mlp, hidden: [12, 6]}}
epochs: 1
num_drawn: 0
device: cpu
"""
AGENT = """
# An agent in the same world.
env: {name: bandit, contexts: digits, num_envs: 2, max_steps: 30}
agent:
  encoder: {name: mlp, hidden: [12, 6]}
  name: ppo
  hidden: 8
  horizon: 8
  batch_size: 8
  device: cpu
num_steps: 64
log_every: 16
evaluation: {num_episodes: 0}
recording: {max_steps: 0}
"""
DQN = [
    "--agent.name=dqn",
    "--agent.encoder.name=mlp",
    "--agent.encoder.hidden=[12,6]",
    "--agent.learning-starts=16",
    "--agent.replay-size=100",
    "--agent.epsilon-steps=64",
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("lesson.yaml").write_text(LESSON)
    Path("agent.yaml").write_text(AGENT)
    return tmp_path


def train(*words: str) -> run.Run:
    """Train by the command line; return the run."""
    before = {one.name for one in run.runs(Path("runs"))}
    assert run_verb(["train", *words]) == 0
    (new,) = (one for one in run.runs(Path("runs")) if one.name not in before)
    return new


def arrays(found: run.Run, which: str = "") -> dict[str, Array]:
    """Return the encoder of a run, by name."""
    own = eyes.origin(found, which, pytest.fail).encoder
    return {name: tensor.numpy() for name, tensor in own.state_dict().items()}


def begun_with(experiment: Any) -> str:
    return experiment.agent.encoder.weights


def same(one: dict[str, Array], two: dict[str, Array]) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) for k in one)


def test_agent_starts_from_a_task_and_needs_it_only_then(home, capsys):
    source = train("lesson.yaml")
    frozen = train(
        "agent.yaml", f"--agent.encoder.weights={source.name[:12]}", "--agent.encoder.learn=none"
    )
    assert "the encoder starts from that of digits-classify" in capsys.readouterr().out
    assert begun_with(frozen.experiment()) == str(source.folder)
    assert same(arrays(frozen), arrays(source))
    learned = train("agent.yaml", "--agent.encoder.weights", str(source.folder))
    assert not same(arrays(learned), arrays(source))
    # Negative control: without it, the encoder is another one from the start.
    alone = train("agent.yaml", "--agent.encoder.learn=none")
    assert not same(arrays(alone), arrays(source))
    shutil.rmtree(source.folder)
    for other in (frozen, learned):
        for words in (["resume", "--num-steps=128"], ["evaluate", "--evaluation.num-episodes=2"]):
            assert run_verb([words[0], other.name, *words[1:]]) == 0
        assert checkpoint.names(other.checkpoints)[-1] == "000000128"
    assert run_verb(["train", "agent.yaml", f"--agent.encoder.weights={source.folder}"]) == 2


@pytest.mark.parametrize("learn", ["all", "none"])
def test_every_kind_of_agent_starts_from_every_other(home, learn):
    flags = [f"--agent.encoder.learn={learn}"]
    source = train("agent.yaml", *DQN)
    assert {
        name.split(".")[0]
        for name in checkpoint.newest(source.checkpoints, pytest.fail)[1]["weights"]
    } == {"encoder", "head"}
    given = train(
        "agent.yaml",
        "--agent.encoder.weights=last",
        "--agent.no-shared",
        "--num-steps=1",
        "--agent.learning-rate=0",
        *flags,
    )
    assert same(arrays(given), arrays(source))
    saved = checkpoint.newest(given.checkpoints, pytest.fail)[1]["weights"]
    for name, array in arrays(source).items():
        assert np.array_equal(saved[f"value_trunk.encoder.{name}"], array)
    last = train(
        "agent.yaml", *DQN, "--agent.encoder.weights=last", *flags, "--agent.learning-rate=0"
    )
    assert same(arrays(last), arrays(source))
    if learn == "all":
        target = checkpoint.newest(last.checkpoints, pytest.fail)[1]["agent"]["target"]
        for name, array in arrays(source).items():
            assert np.array_equal(target[f"encoder.{name}"], array)


def test_task_starts_from_an_agent(home):
    source = train("agent.yaml")
    given = train("lesson.yaml", "--task.encoder.weights=last", "--task.encoder.learn=none")
    assert same(arrays(given), arrays(source))
    learned = train(
        "lesson.yaml", f"--task.encoder.weights={source.name}", "--task.encoder.learn=last"
    )
    moved = {k for k, v in arrays(learned).items() if not np.array_equal(v, arrays(source)[k])}
    assert moved == {"layers.1.weight", "layers.1.bias"}
    shutil.rmtree(source.folder)
    assert run_verb(["resume", given.name, "--epochs=2"]) == 0
    assert run_verb(["evaluate", given.name]) == 0


def test_study_names_the_run_it_starts_from(home):
    from rlplay import study

    source = train("lesson.yaml")
    text = AGENT + "variants:\n  a: {agent: {encoder: {weights: digits-classify}}}\n  b: {}\n"
    Path("several.yaml").write_text(text)
    folder = study.create("several.yaml", [], Path("runs"))
    member = config.load(str(folder / "000-ppo/config.yaml"))
    assert begun_with(member) == str(source.folder)
    assert study.go(folder, print, ["study"]) == 0
    shutil.rmtree(source.folder)
    assert study.go(folder, print, ["study"]) == 0


def test_study_that_starts_from_no_run_leaves_no_folder(home):
    from rlplay import study

    text = AGENT + "variants:\n  a: {}\n  b: {agent: {encoder: {weights: nowhere}}}\n"
    Path("several.yaml").write_text(text)
    with pytest.raises(Mistake, match="there are no runs"):
        study.create("several.yaml", [], Path("runs"))
    assert not Path("runs").exists()


# --- what does not fit -------------------------------------------------------------------------


def fake(home: Path, name: str, settings: dict[str, Any], shape: list[int]) -> run.Run:
    """Write the run of a task whose encoder is random."""
    folder = home / "runs" / name
    folder.mkdir(parents=True)
    text = {"data": {"name": "digits"}, "task": {"name": "classify", "encoder": settings}}
    (folder / "config.yaml").write_text(yaml.dump(text))
    (folder / "data.json").write_text(f'{{"shape": {shape}}}')
    channels, height, width = shape
    encoder = convert(backbones.Config, settings, "x", "y").make((channels, height, width))
    weights = {f"encoder.{k}": x.detach().numpy() for k, x in encoder.state_dict().items()}
    parts = {"weights": weights, "task": {"buffers": {}}, "train": {"updates": 7}}
    checkpoint.save(folder / "checkpoints", "7", parts)
    return run.Run(folder)


PICTURES = ["--env.name=atari", "--env.game=pong", "--env.num-envs=1", "--env.frame-size=42"]
NIPS = [*PICTURES, "--agent.encoder.name=nips2013", "--agent.encoder.first-stride=2"]


@pytest.mark.parametrize(
    ("settings", "shape", "flags", "words"),
    [
        ({"name": "nips2013", "first_stride": 2}, [4, 60, 60], NIPS, ""),  # of another size
        (
            {"name": "nips2013", "first_stride": 2},
            [4, 42, 42],
            [*PICTURES, "--agent.encoder.name=nature", "--agent.encoder.first-stride=2"],
            "which does not fit an encoder nature (width 1, first_stride 2) of [4, 42, 42] here:"
            " set agent.encoder.name=nips2013",
        ),
        (
            {"name": "nips2013", "first_stride": 4, "width": 0.5},
            [4, 42, 42],
            NIPS,
            "set agent.encoder.width=0.5 agent.encoder.first_stride=4",
        ),
        (
            {"name": "nips2013", "first_stride": 2},
            [3, 42, 42],
            NIPS,
            "of [3, 42, 42], which does not fit an encoder nips2013 (width 1, first_stride 2) of"
            " [4, 42, 42] here: an encoder keeps its number of channels",
        ),
        ({"name": "lenet"}, [4, 42, 42], NIPS, "name a run whose encoder is one of mlp, nips2013"),
        (
            {"name": "mlp", "hidden": [5]},
            [4, 20, 20],
            [*PICTURES, "--agent.encoder.name=mlp", "--agent.encoder.hidden=5"],
            "an mlp sees only what has the size it was trained on",
        ),
        (
            {"name": "mlp", "hidden": [5]},
            [1, 8, 8],
            ["--agent.encoder.hidden=[6]"],
            "set agent.encoder.hidden=[5]",
        ),
    ],
)
def test_encoder_that_does_not_fit_is_one_sentence(home, capsys, settings, shape, flags, words):
    fake(home, "the-source", settings, shape)
    words_ = ["train", "agent.yaml", "--agent.encoder.weights=the-s", "--num-steps=8", *flags]
    words_ += ["--agent.hidden=4", "--agent.horizon=8", "--agent.batch-size=8"]
    code = run_verb(words_)
    error = capsys.readouterr().err.strip()
    folders = [path.name for path in (home / "runs").iterdir()]
    if not words:
        assert code == 0, error
        return
    assert code == 2
    assert folders == ["the-source"]
    assert len(error.splitlines()) == 1
    assert words in error
    assert "the-source has an encoder" in error


def test_run_without_an_encoder_or_a_checkpoint_is_one_sentence(home, capsys):
    begin = ["train", "agent.yaml", "--agent.encoder.weights"]
    assert run_verb([*begin, "last"]) == 2
    assert "there are no runs in runs" in capsys.readouterr().err
    linear = train("agent.yaml", "--agent.name=linucb")
    assert run_verb([*begin, linear.name]) == 2
    assert "has trained linucb" in capsys.readouterr().err
    sb3 = train("agent.yaml", "--agent.name=sb3", "--agent.hyperparameters.n-steps=32")
    assert run_verb([*begin, sb3.name]) == 2
    assert "has no encoder of ours: name another run" in capsys.readouterr().err
    source = train("agent.yaml")
    shutil.rmtree(source.checkpoints)
    before = len(run.runs(Path("runs")))
    assert run_verb([*begin, source.name]) == 2
    assert "checkpoint" in capsys.readouterr().err
    assert len(run.runs(Path("runs"))) == before


def test_run_that_has_begun_takes_over_no_other_weights(home, capsys):
    source, given = train("lesson.yaml"), train("agent.yaml")
    for verb in ("resume", "evaluate", "record"):
        assert run_verb([verb, given.name, "--agent.encoder.weights", source.name]) == 2
        assert "taken over only at the start" in capsys.readouterr().err


def test_sb3_starts_from_a_run_and_says_what_it_cannot(home, capsys):
    source = train("lesson.yaml")
    flags = [
        "--agent.name=sb3",
        "--agent.hyperparameters.n-steps=8",
        "--agent.encoder.hidden=[12,6]",
        "--agent.hyperparameters.batch-size=8",
        f"--agent.encoder.weights={source.name}",
    ]
    assert run_verb(["train", "agent.yaml", *flags]) == 2
    assert "set agent.encoder.name=nature" in capsys.readouterr().err
    flags.append("--agent.encoder.name=mlp")
    assert run_verb(["train", "agent.yaml", *flags, "--agent.encoder.rate-decay=0.5"]) == 2
    assert "one step size for all layers" in capsys.readouterr().err
    given = train("agent.yaml", *flags, "--agent.encoder.learn=none")
    assert same(arrays(given), arrays(source))
    assert not same(arrays(train("agent.yaml", *flags)), arrays(source))


def test_encoder_of_numbers_is_no_pair_of_eyes(home):
    with pytest.raises(Mistake, match=r"sees no pictures but \[64\] numbers"):
        eyes.load(train("agent.yaml"), "", pytest.fail)
    found = eyes.load(train("lesson.yaml"), "", pytest.fail)
    assert found.shape == (1, 8, 8)
    assert found.about.endswith("updates")
