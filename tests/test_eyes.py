"""Laws of rlplay/eyes.py: any run's encoder sees what the trained network's own sees."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlplay import checkpoint, config, eyes, lesson, run
from rlplay.config import Lesson
from rlplay.core import Mistake
from rlplay.eyes import Eyes

SMALL = {
    "digits/classify": ["--task.encoder.width=0.25", "--device=cpu"],
    "pong/ppo": ["--agent.device=cpu", "--agent.precision=float32", "--env.num-envs=4"],
    "pong/dqn": [
        "--agent.device=cpu", "--agent.precision=float32", "--agent.replay-size=100",
        "--agent.learning-starts=10", "--env.num-envs=4", "--env.frame-size=42",
        "--agent.encoder.first-stride=2",
    ],
    "cartpole/dqn": ["--agent.device=cpu"],
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with a run of each of these configs, as they are before the first update."""
    root = tmp_path_factory.mktemp("runs")
    for name, flags in SMALL.items():
        experiment = config.load_any(name, flags)
        if isinstance(experiment, Lesson):
            learning = lesson.Learning(experiment, print)
            found = run.create(experiment, learning.spec, root)
            learning.updates = 64
            batch = next(learning.task.train().batches("train", 64))
            learning.update(batch)  # batch norm has seen something
            checkpoint.save(found.checkpoints, "best", learning.parts())
            continue
        env = experiment.env.make()
        found = run.create(experiment, env.spec, root)
        agent = experiment.agent.make(env.spec, 7)
        env.close()
        parts = {key: part for key, part in agent.state_dict().items() if key != "replay"}
        checkpoint.save(found.checkpoints, "000000064", {**parts, "train": {"steps": 64}})
    return root


def load(runs: Path, name: str) -> tuple[run.Run, Eyes]:
    found = run.find(name, runs)
    return found, eyes.load(found, "", print)


def same(found: Eyes, theirs: torch.nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Check that an encoder sees what theirs does."""
    picture = torch.rand(2, *found.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps, expected = found.encoder(picture), theirs.float()(picture)
    assert len(maps) == len(expected) > 1
    for one, other in zip(maps, expected, strict=True):
        assert one.dtype == torch.float32
        assert one.std() > 0
        torch.testing.assert_close(one, other)


def test_a_tasks_encoder_is_that_of_its_best_validation(runs):
    found, sees = load(runs, "digits")
    learning = lesson.load(found, "", print)
    assert sees.shape == (1, 8, 8)
    same(sees, learning.task.eval().encoder)
    assert sees.about == f"{found.name} after {learning.updates} updates"
    assert not any(weight.requires_grad for weight in sees.encoder.parameters())


@pytest.mark.parametrize("name", ["pong-ppo", "pong-dqn"])
def test_an_agents_encoder_is_that_of_its_network(runs, name):
    found, sees = load(runs, name)
    agent = run.load_player(found, "", print).agent
    theirs = agent.online.encoder if name == "pong-dqn" else agent.network.trunk.encoder
    assert sees.shape == (4, 42, 42)
    same(sees, theirs)
    assert sees.about.endswith("after 64 agent steps")
    with torch.no_grad():  # a negative control
        next(theirs.parameters()).mul_(1.1)
    with pytest.raises(AssertionError):
        same(sees, theirs)


def test_a_run_without_an_encoder_of_pictures_is_one_sentence(runs):
    with pytest.raises(Mistake, match=r"cartpole.* sees no pictures but \[4\] numbers: name"):
        load(runs, "cartpole")
