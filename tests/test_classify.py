"""Laws of rlplay/perception/classify.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor

from rlplay.core import Mistake
from rlplay.perception import classify
from rlplay.perception.classify import Classify, wilson
from rlplay.perception.source import SPLITS, Source


def source(num: int = 50, **arrays: np.ndarray) -> Source:
    random = np.random.default_rng(1)
    found = {"picture": random.integers(256, size=(num, 1, 8, 8), dtype=np.uint8), **arrays}
    splits = dict.fromkeys(SPLITS, np.arange(num))
    return Source("noise", found, splits, tuple("abcd"))


@pytest.fixture
def task() -> Classify:
    torch.manual_seed(0)
    label = np.random.default_rng(2).integers(4, size=50)
    return classify.Config(hidden=0).make(source(label=label))


def batch(task: Classify) -> dict[str, Tensor]:
    return next(task.batches("train", 100))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_the_cross_entropy_computed_by_hand(smoothing):
    label = np.random.default_rng(2).integers(4, size=50)
    task = classify.Config(smoothing=smoothing).make(source(label=label)).eval()
    loss, found = task.loss(batch(task))
    logits = task(batch(task)["picture"]).detach().double().numpy()
    log_share = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = (1 - smoothing) * np.eye(4)[label] + smoothing / 4
    assert loss.item() == pytest.approx(-(target * log_share).sum(1).mean(), rel=1e-5)
    assert found["accuracy"].item() == pytest.approx((logits.argmax(1) == label).mean())


def test_what_is_found_is_what_scikit_learn_finds(task):
    task.eval()
    with torch.no_grad():
        found = task.examine(task.batches("test", 7))
        said = task(batch(task)["picture"]).argmax(1).numpy()
    label = task.source.arrays["label"]
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(label, said))
    assert found["f1"] == pytest.approx(metrics.f1_score(label, said, average="macro"))
    assert found["errors"] == (said != label).sum()


def test_what_is_found_is_what_torchmetrics_finds(task):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    task.eval()
    with torch.no_grad():
        found = task.examine(task.batches("test", 7))
        logits = task(batch(task)["picture"])
    label = batch(task)["label"]
    for name, average in (("accuracy", "micro"), ("f1_score", "macro")):
        theirs = getattr(functional, f"multiclass_{name}")(logits, label, 4, average=average)
        assert found[name.removesuffix("_score")] == pytest.approx(theirs.item())


def test_interval_is_wilsons():
    from scipy.stats import binomtest

    for right, count in ((0, 10), (355, 360), (360, 360), (50, 100)):
        theirs = binomtest(right, count).proportion_ci(method="wilson")
        assert wilson(right, count) == pytest.approx((theirs.low, theirs.high), abs=1e-4)


def test_dropout_leaves_out_while_learning_only(task):
    task = classify.Config(dropout=0.5).make(task.source)
    picture = batch(task)["picture"]
    assert not torch.equal(task.train()(picture), task(picture))
    assert torch.equal(task.eval()(picture), task(picture))


def test_pooling_takes_the_mean_of_each_channel(task):
    pooled = classify.Config(pool="mean", hidden=0).make(task.source).eval()
    last = pooled.encoder(pooled.prepared(batch(task)["picture"]))[-1]
    torch.testing.assert_close(pooled.last(last.mean((2, 3))), pooled(batch(task)["picture"]))


def test_one_class_alone_is_refused(task):
    with pytest.raises(Mistake, match="have one class, cat, so that there is nothing to tell"):
        classify.Config().make(replace(task.source, classes=("cat",)))


def test_data_without_labels_are_refused():
    mask = np.zeros((50, 8, 8), np.uint8)
    with pytest.raises(Mistake, match="the label of every picture, but the data noise has mask"):
        classify.Config().make(source(mask=mask))
    with pytest.raises(Mistake, match="has no labels"):
        classify.Config().make(source())
