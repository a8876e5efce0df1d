"""The laws that every perception task and every config of one keeps, by discovery."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rlplay import config
from rlplay.lesson import Learning
from rlplay.perception import data
from rlplay.perception.source import SPLITS, Source
from rlplay.perception.task import Task

TASKS = config.names("tasks")
LESSONS = [name for name in config.names("configs") if "task" in config.read(name)[1]]


def noise(shape: tuple[int, int, int], num: int = 24) -> Source:
    """Return random pictures with random labels, masks and boxes of three kinds, in episodes of
    four."""
    random = np.random.default_rng(0)
    height, width = shape[1:]
    corners = random.uniform(0, (width / 2, height / 2), (num, 2, 2))
    sizes = random.uniform(4, (width / 2, height / 2), (num, 2, 2))
    arrays = {
        "picture": random.integers(256, size=(num, *shape), dtype=np.uint8),
        "label": random.integers(3, size=num),
        "mask": random.integers(3, size=(num, *shape[1:]), dtype=np.uint8),
        "boxes": np.concatenate([corners, corners + sizes], 2).astype(np.float32),
        "kind": random.integers(3, size=(num, 2)),
        "variables": random.integers(3, size=(num, 2), dtype=np.uint8),
        "squares": random.integers(3, size=(num, 2, 3)),
        "episode": np.arange(num) // 4,
    }
    parts = np.array_split(np.arange(num), 3)
    splits, names = dict(zip(SPLITS, parts, strict=True)), ("a", "b", "c")
    return Source("noise", arrays, splits, names, names, ("x", "y"), {"x": 1.0})


def made(name: str, source: Source) -> Task:
    return config.plugin("tasks", name).Config().make(source)


def batch(source: Source) -> dict[str, torch.Tensor]:
    every = np.arange(len(source.arrays["picture"][:]))
    return {name: torch.from_numpy(array) for name, array in source.take(every).items()}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 36, 20)])
def test_task_has_a_loss_that_every_weight_can_lower(name, shape):
    source = noise(shape)
    task = made(name, source)
    loss, metrics = task.loss(batch(source))
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    assert all(value.isfinite() for value in metrics.values())
    loss.backward()
    still = [k for k, p in task.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


@pytest.mark.parametrize("name", TASKS)
def test_task_examines_all_and_changes_nothing_by_it(name):
    source = noise((1, 28, 28))
    task = made(name, source).eval()
    before = {key: value.clone() for key, value in task.state_dict().items()}
    with torch.inference_mode():
        whole = task.examine(task.batches("test", 100))
        parts = task.examine(task.batches("test", 3))
        drawn = task.draw(next(task.batches("test", 4)))
    assert task.goal in whole
    assert set(whole) == set(parts)
    if name == "classify":  # a task without noise of its own
        assert whole == pytest.approx(parts, rel=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in task.state_dict().items())
    for picture in drawn.values():
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert picture.std() > 0
    assert task.sentence(whole)


@pytest.mark.parametrize("name", TASKS)
def test_encoder_keeps_its_promise(name):
    source = noise((1, 36, 28))
    encoder = made(name, source).encoder.eval()
    maps = encoder(torch.zeros(2, 1, 36, 28))
    for found, channels, stride in zip(maps, encoder.channels, encoder.strides, strict=True):
        assert found.shape == (2, channels, 36 // stride, 28 // stride)


@pytest.mark.parametrize("name", TASKS)
def test_task_says_what_it_is_for(name):
    assert len(config.about("tasks", name)) > 20


@pytest.mark.parametrize("name", LESSONS)
def test_config_of_a_task_takes_three_updates(name, monkeypatch):
    shape = {"digits": (1, 8, 8), "mnist": (1, 28, 28)}.get(name.split("/")[0], (3, 64, 64))
    monkeypatch.setattr(data.Config, "make", lambda self, rules=None: noise(shape))
    lesson: Any = config.load_any(name, ["--batch-size=4"])
    learning = Learning(lesson, print)
    for examples in list(learning.task.batches("train", 4))[:3]:
        assert np.isfinite(learning.update(examples)["loss"])
    assert len(config.about("configs", name)) > 20
    world, task = name.split("/")
    assert lesson.data.world == world
    assert task.startswith(lesson.task.name)
