"""Laws of rlplay/perception/variables.py: many labels of a picture at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics

from rlplay.core import Mistake
from rlplay.nets import backbones
from rlplay.perception import classify, data, variables
from rlplay.perception.source import SPLITS, Source
from rlplay.perception.variables import Variables

NAMES = ("ball_x", "ball_y", "lives")


def source(num: int = 40, **others: np.ndarray) -> Source:
    random = np.random.default_rng(1)
    arrays = {
        "picture": random.integers(256, size=(num, 1, 16, 20), dtype=np.uint8),
        "variables": random.integers(256, size=(num, 3), dtype=np.uint8),
        "kind": random.integers(2, size=(num, 2)),  # a ball at some moments, twice at a few
        **others,
    }
    splits = dict.fromkeys(SPLITS, np.arange(num))
    places = {"ball_x": 1.0, "ball_y": 2.0}
    return Source("noise", arrays, splits, (), ("background", "ball"), NAMES, places)


def made(**settings) -> Variables:
    torch.manual_seed(0)
    task = classify.Config(target="variables", hidden=0, **settings).make(source())
    assert isinstance(task, Variables)
    return task.eval()


def everything(task: Variables) -> tuple[dict[str, torch.Tensor], np.ndarray, np.ndarray]:
    """Return all examples in a batch, its logits [B, 256, V] and the truth [B, V]."""
    batch = next(task.batches("train", 100))
    with torch.no_grad():
        return batch, task(batch["picture"]).double().numpy(), batch["variables"].numpy()


@pytest.mark.parametrize("pool", ["none", "mean", "axes"])
def test_loss_is_the_mean_cross_entropy_over_the_variables(pool):
    task = made(pool=pool)
    batch, logits, truth = everything(task)
    log_share = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    each = [-log_share[np.arange(40), truth[:, v], v].mean() for v in range(3)]
    assert task.loss(batch)[0].item() == pytest.approx(np.mean(each), rel=1e-5)


def test_a_bell_is_the_target_of_places_alone():
    task = made(spread=2.0)
    batch, logits, truth = everything(task)
    log_share = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    total = 0.0
    for v, name in enumerate(NAMES):
        for row, value in zip(log_share[:, :, v], truth[:, v].astype(int), strict=True):
            bell = np.exp(-((np.arange(256) - value) ** 2) / (2 * 2.0**2))
            target = np.eye(256)[value] if name == "lives" else bell / bell.sum()
            total -= (target * row).sum() / (40 * 3)
    assert task.loss(batch)[0].item() == pytest.approx(total, rel=1e-5)


def test_what_is_found_is_what_scikit_learn_finds():
    task = made()
    batch, logits, truth = everything(task)
    with torch.no_grad():
        found = task.examine(task.batches("test", 7))
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    seen = (batch["kind"].numpy() == 1).any(1)
    assert 5 < seen.sum() < 40
    for v, name in enumerate(NAMES):
        said = logits[:, :, v].argmax(1)
        f1 = metrics.f1_score(truth[:, v], said, average="weighted", zero_division=0)
        assert found[f"f1/{name}"] == pytest.approx(f1)
        assert found[f"accuracy/{name}"] == pytest.approx((said == truth[:, v]).mean())
    for v, step in ((0, 1), (1, 2)):
        median = (share[:, :, v].cumsum(1) < 0.5).sum(1)
        off = step * np.abs(median - truth[:, v])[seen]  # where there is a ball
        assert found[f"pixels/{NAMES[v]}"] == pytest.approx(off.mean())
        assert found[f"near/{NAMES[v]}"] == pytest.approx((off <= 2).mean())
    assert "pixels/lives" not in found
    assert found["f1"] == pytest.approx(np.mean([found[f"f1/{name}"] for name in NAMES]))


def test_f1_counts_values_by_how_often_they_are_true():
    truth, said = np.array([3, 3, 3, 200]), np.array([3, 3, 200, 0])
    assert variables.f1(truth, said)[0] == pytest.approx(0.75 * 0.8)
    assert variables.f1(truth, truth)[0] == 1


def test_median_is_the_value_in_the_middle_of_the_likely_ones():
    logits = torch.full((1, 256, 1), -50.0)
    logits[0, [10, 20, 200], 0] = 0
    assert variables.median(logits).item() == 20


def test_places_are_learned_from_pictures_that_show_them():
    """A bright dot, whose column and row are the variables; a negative control sees no dot."""
    random = np.random.default_rng(0)
    places = random.integers(2, (18, 14), (300, 2))  # column, row
    picture = np.zeros((300, 1, 16, 20), np.uint8)
    picture[np.arange(300), 0, places[:, 1], places[:, 0]] = 255
    off = []
    for shown, heat in ((picture, False), (picture, True), (picture[::-1].copy(), True)):
        torch.manual_seed(0)
        truth = np.concatenate([places, places[:, :1]], 1).astype(np.uint8)
        noise = source(300, picture=shown, variables=truth, kind=np.ones((300, 1), np.int64))
        encoder = backbones.Config("small", width=0.25)
        task = classify.Config(
            target="variables", encoder=encoder, pool="axes", hidden=0, spread=1, heat=heat
        ).make(noise)
        optimizer = torch.optim.Adam(task.parameters(), 1e-2)
        for _ in range(24 if heat else 12):
            for batch in task.batches("train", 30, random.permutation(240)):
                optimizer.zero_grad()
                task.loss(batch)[0].backward()
                optimizer.step()
        held_out = task.eval().batches("test", 60, np.arange(240, 300))
        with torch.no_grad():
            off.append(task.examine(held_out)["pixels"])
    assert max(off[:2]) < 1
    assert off[2] > 2.5


def test_heat_is_the_middle_of_where_a_thing_may_be():
    heat = variables.Heat((2, 1), [False, True])
    with torch.no_grad():
        heat.likely.weight[:] = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
        heat.slope[:], heat.offset[:] = torch.tensor([0.5, 0.2]), torch.tensor([0.6, 0.7])
        maps = [torch.zeros(1, 2, 5, 9), torch.zeros(1, 1, 3, 5)]
        maps[0][0, 0, 4, 2] = 60  # the bottom row, the third of nine columns
        expected = [100 * (0.6 - 0.5 * 0.5), 100 * (0.7 + 0.2)]
        assert heat(maps)[0].tolist() == pytest.approx(expected)
        maps[0][0, 0, 4, 6] = 60  # as likely there
        assert heat(maps)[0].tolist() == pytest.approx([60, 90])


def test_heat_learns_from_moments_that_show_the_thing_alone():
    task = made(heat=True)
    batch, _, truth = everything(task)
    shown = (batch["kind"].numpy() == 1).any(1)
    with torch.no_grad():
        places = task.look(batch["picture"])[1]
        assert places is not None
        off = (places.numpy() - truth[:, :2]) * np.array([1.0, 2.0])
        found = task.examine(task.batches("train", 100))
        more, less = task.loss(batch)[0].item(), made().loss(batch)[0].item()
    assert found["pixels/ball_x"] == pytest.approx(np.abs(off[shown, 0]).mean(), rel=1e-5)
    unit = np.abs(off[shown] / variables.UNIT)
    huber = np.where(unit < 0.25, unit**2 / 2, 0.25 * (unit - 0.125))
    assert more - less == pytest.approx(huber.mean(), rel=0.1)


def test_data_without_variables_are_refused():
    digits = data.Config().make()
    with pytest.raises(Mistake, match="the variables of every picture, but the data digits"):
        classify.Config(target="variables").make(digits)
