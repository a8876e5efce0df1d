"""Laws of `rlplay explain`: a whole page or none, the same for the same seed, of what is there; and
one sentence where there is nothing to explain."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_lesson import AUTOENCODE, TINY
from test_variables import source as noise

from rlplay import config, lesson, run
from rlplay.__main__ import run_verb
from rlplay.insight import adversarial, deceive, exhibits, explain, subject
from rlplay.insight.subject import Subject
from rlplay.nets import backbones
from rlplay.perception import classify, data, gallery

SHORT = ["--num-frames=2", "--num-units=3", "--num-patches=2", "--num-steps=3", "--max-steps=6"]
FEW = ["--num-episodes=2", "--num-pictures=40"]
SMALL = [*SHORT, "--epsilons", "0", "4", "--patches", "0.2", *FEW]
PONG = """
env: {name: atari, game: pong, num_envs: 2, frame_size: 42}
agent:
  name: ppo
  horizon: 2
  batch_size: 4
  encoder: {name: nips2013, first_stride: 2, width: 0.25}
  hidden: 8
  device: cpu
num_steps: 4
evaluation: {num_episodes: 0}
recording: {max_steps: 0}
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch) -> None:
    """Let attacks take two rounds, not forty."""
    monkeypatch.setattr(adversarial, "ROUNDS", 2)


def trained(root: Path, text: str, *settings: str) -> str:
    file = root / "config.yaml"
    file.write_text(text)
    before = {found.name for found in run.runs(root)}
    assert run_verb(["train", str(file), *settings, "--runs", str(root)]) == 0
    (name,) = {found.name for found in run.runs(root)} - before
    return name


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def digits(root) -> run.Run:
    return run.Run(root / trained(root, TINY))


@pytest.fixture(scope="module")
def ppo(root) -> run.Run:
    return run.Run(root / trained(root, PONG))


def explained(found: run.Run, *settings: str) -> int:
    return run_verb(["explain", str(found.folder), *settings])


def leftovers(found: run.Run) -> list[str]:
    return [path.name for path in found.folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("which", ["digits", "ppo"])
def test_the_page_shows_files_that_are_there_and_nothing_from_elsewhere(which, request):
    found = request.getfixturevalue(which)
    assert explained(found, *SMALL) == 0
    folder = found.folder / "explain"
    text = (folder / "index.html").read_text()
    shown = re.findall(r'src="([^"]+)"', text)
    assert {"filters.png", "favourites.png", "saliency.png", "adversarial.png"} <= set(shown)
    assert ("film.mp4" in shown) == (which == "ppo")
    assert not [name for name in shown if not (folder / name).is_file()]
    assert "http" not in text
    about = json.loads((folder / "explain.json").read_text())
    assert sorted(about["files"]) == sorted(path.name for path in folder.iterdir())
    numbers = json.loads((folder / "adversarial.json").read_text())
    for points in numbers["epsilon"].values():
        assert [point["size"] for point in points] == [0, 4]
        assert points[0] == numbers["epsilon"]["fast gradient sign"][0]  # nothing was attacked
    assert not leftovers(found)


def test_same_run_same_pictures_and_an_older_page_is_replaced(digits, tmp_path):
    files = []
    for _ in range(2):
        assert explained(digits, *SMALL, "--no-attacks", "--out", str(tmp_path / "one")) == 0
        files.append({path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()})
    assert files[0] == files[1]
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_task_that_chooses_nothing_shows_filters_and_patches(root):
    found = run.Run(root / trained(root, TINY, *AUTOENCODE))
    assert explained(found, *SMALL) == 0
    shown = sorted(path.name for path in (found.folder / "explain").glob("*.png"))
    assert shown == ["filters.png", "patches-layer0.png", "patches-layer1.png"]


def test_a_task_of_many_labels_chooses_nothing(monkeypatch):
    source = noise(label=np.zeros(40, np.int64))
    for target, chooses in (("variables", False), ("label", True)):
        task = classify.Config(target=target, hidden=0).make(replace(source, classes=("a", "b")))
        there = SimpleNamespace(data=data.Config(), task=task.config)
        learned = SimpleNamespace(task=task, source=source, lesson=there, updates=1)
        monkeypatch.setattr(lesson, "load", lambda *_, learned=learned: learned)
        found: Any = SimpleNamespace(name="run")
        asked = subject.of_task(found, "", 0, 9, lambda sentence: None)
        assert (asked.judge is not None) == chooses


def test_whatever_interrupts_leaves_the_old_page_and_nothing_half(digits, monkeypatch):
    assert explained(digits, *SMALL, "--no-attacks") == 0
    page = digits.folder / "explain" / "index.html"
    before = page.read_bytes()

    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(exhibits, "looked_at", interrupted)
    assert explained(digits, *SMALL) == 130
    assert page.read_bytes() == before
    assert not leftovers(digits)


@pytest.mark.parametrize("name", ["dqn", "pqn", "a2c", "reinforce"])
def test_every_agent_with_an_encoder_is_asked_in_the_same_way(name, tmp_path):
    file = tmp_path / "config.yaml"
    agent = f"agent: {{name: {name}, hidden: 8, encoder: {{name: nips2013, first_stride: 2}}}}"
    file.write_text(f"env: {{name: atari, game: pong, frame_size: 42}}\n{agent}\nnum_steps: 1\n")
    experiment = config.load(str(file))
    with run.single_env(experiment) as env:
        spec = env.spec
    made = experiment.agent.make(spec, 0, learns=False)
    pictures = torch.randint(256, (3, 4, 42, 42), dtype=torch.uint8)
    scores, value = made.scores(pictures)
    assert scores.shape == (3, spec.num_actions)
    assert value.shape == (3,)
    x = (pictures / 255).requires_grad_()
    again = made.scores(x)
    assert torch.allclose(again[0], scores, atol=0.02)
    (slope,) = torch.autograd.grad(again[0].sum() + again[1].sum(), x)
    assert slope.shape == x.shape
    assert made.encoder.channels == (16, 32)


def test_what_an_agent_is_asked_is_what_it_acts_by(ppo):
    found = subject.load(ppo, "", 0, 6, 1, lambda sentence: None)
    assert found.episode is not None
    acted = [int(moment.decision.action[0]) for moment in found.episode.moments]
    assert found.chosen(found.pictures).tolist() == acted
    policy = np.stack([m.decision.notes["policy"][0] for m in found.episode.moments])
    with torch.no_grad():
        shares = found.scores(found.tensor(found.pictures)).softmax(1).numpy()
    assert np.allclose(shares, policy, atol=1e-5)


def test_an_agent_behind_a_frozen_encoder_is_asked_with_it_inside(root):
    found = run.Run(root / trained(root, PONG, "--agent.encoder.learn=none"))
    asked = subject.load(found, "", 0, 3, 1, lambda sentence: None)
    assert asked.episode is not None
    acted = [int(moment.decision.action[0]) for moment in asked.episode.moments]
    assert asked.chosen(asked.pictures).tolist() == acted


def test_agents_of_sb3_are_one_sentence(tmp_path, capsys):
    experiment = config.load("pong/ppo", ["--agent.name=sb3"])
    with run.single_env(experiment) as env:
        found = run.create(experiment, env.spec, tmp_path)
    assert explained(found) == 2
    assert "only dqn, pqn, ppo, a2c and reinforce" in capsys.readouterr().err


MISTAKES = {
    "unknown class": (["--names", "eleven"], "knows no class called 'eleven'"),
    "unknown layer": (["--layers", "7"], "no layer 7: --layers takes numbers from 0 to 1"),
    "epsilon below 0": (["--epsilons", "-1"], "--epsilons must be a list, each a whole number"),
    "unknown setting": (["--epsilon", "3"], "no setting 'epsilon'; did you mean 'epsilons'"),
    "no checkpoint": (["--checkpoint", "77"], "no checkpoint '77'"),
    "not our folder": (["--out", "."], "is no page of ours: name another folder in --out"),
}


@pytest.mark.parametrize("what", list(MISTAKES))
def test_a_mistake_is_one_sentence_and_writes_nothing(digits, what, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, sentence = MISTAKES[what]
    before = sorted(path.name for path in digits.folder.iterdir())
    assert explained(digits, *SHORT, *words) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in digits.folder.iterdir()) == before
    assert not list(tmp_path.iterdir())


WITHOUT = {
    "cartpole/dqn": "shows no pictures: name a run that learned from pictures",
    "frozen_lake/q_learning": "shows no pictures",
}


@pytest.mark.parametrize("name", list(WITHOUT))
def test_agents_without_pictures_are_one_sentence(name, tmp_path, capsys):
    experiment = config.load(name)
    with run.single_env(experiment) as env:
        found = run.create(experiment, env.spec, tmp_path)
    assert explained(found) == 2
    assert WITHOUT[name] in capsys.readouterr().err


def test_agents_with_memory_and_without_checkpoint_are_one_sentence(tmp_path, capsys):
    experiment = config.load("pong/ppo", ["--agent.recurrent.name=lstm"])
    with run.single_env(experiment) as env:
        found = run.create(experiment, env.spec, tmp_path)
        assert explained(found) == 2
        assert "with memory" in capsys.readouterr().err
        found = run.create(config.load("pong/ppo"), env.spec, tmp_path)
    assert explained(found) == 2
    assert "checkpoint" in capsys.readouterr().err


def test_what_stands_still_is_grey_and_what_moves_is_not():
    moments = np.zeros((4, 6, 6), np.uint8)
    moments[:, 0] = 200
    moments[0, 3, 1], moments[3, 3, 4] = 200, 200
    drawn = gallery.shown(moments, 4)
    assert len(set(drawn[0, 0].tolist())) == 1
    assert drawn[3, 4].argmax() == 0  # red: now
    assert drawn[3, 1].argmax() == 2  # blue: before


def test_diverging_colours_are_white_at_0_and_ends_at_1():
    drawn = gallery.diverging(np.array([-1.0, 0, 1, 5]))
    assert drawn[1].tolist() == [255, 255, 255]
    assert drawn[0].tolist() == list(gallery.NEGATIVE)
    assert drawn[2].tolist() == drawn[3].tolist() == list(gallery.POSITIVE)


def test_a_map_of_nothing_leaves_a_picture_grey_and_inks_show_where_it_is_something():
    colours = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
    plain = gallery.tinted(colours, [(np.zeros((8, 8)), (255, 0, 0))])
    assert (plain[..., 0] == plain[..., 2]).all()
    spot = np.zeros((8, 8))
    spot[2, 3] = 1
    drawn = gallery.tinted(colours, [(spot, (255, 0, 0))])
    assert drawn[2, 3, 0] > 180 > drawn[2, 3, 2]
    spot[2, 3] = 0
    assert np.array_equal(gallery.tinted(colours, [(spot, (255, 0, 0))]), plain)


def test_frames_to_explain_are_spread_and_of_a_test_half_are_mistaken(digits):
    found = subject.load(digits, "", 0, 6, 60, lambda sentence: None)
    index = explain.chosen_frames(found, 6)
    assert len(set(index)) == len(index) == 6
    assert found.labels is not None
    wrong = found.chosen(found.pictures)[index] != found.labels[index]
    assert 1 <= wrong.sum() <= 3


@pytest.mark.parametrize(("channels", "num_moments"), [(3, 1), (6, 2), (2, 2), (1, 1)])
def test_colours_and_moments_of_any_number_are_drawn(channels, num_moments, tmp_path):
    torch.manual_seed(0)
    encoder = backbones.Config(name="nips2013", first_stride=2, width=0.2)
    encoder = encoder.make((channels, 40, 32)).eval().requires_grad_(False)
    head = torch.nn.Linear(encoder(torch.zeros(1, channels, 40, 32))[-1].numel(), 3)

    def judge(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = head(encoder(pictures)[-1].flatten(1))
        return scores, scores.amax(1)

    pictures = np.random.default_rng(0).integers(256, size=(5, channels, 40, 32), dtype=np.uint8)
    found = Subject("run", "about", 7, encoder, pictures, num_moments, judge, ("a", "b", "c"))
    found = replace(found, labels=found.chosen(pictures), others=pictures)
    shown = [
        exhibits.first_filters(found, tmp_path, 4),
        exhibits.excited(found, tmp_path, 0, 4, 2),
        exhibits.favourites(found, tmp_path, [0, 2], 0, 3, 1.0),
        exhibits.looked_at(found, tmp_path, [1, 4], 0),
        deceive.deceived(found, tmp_path, [1, 4], [3], [0.2], 2, 2, 0, lambda sentence: None),
    ]
    files = [figure.file for exhibit in shown if exhibit for figure in exhibit.figures]
    assert len(files) == 6
    for file in files:
        width, height = Image.open(tmp_path / file).size
        assert 0 < width < 1600
        assert height > 0
    assert shown[-1].table[1][1:] == ["100.0% (56.6% to 100.0%)"] * 3  # not attacked, all is right
