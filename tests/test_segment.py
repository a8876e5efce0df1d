"""Laws of rlplay/perception/segment.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor
from torch.nn import functional as F

from rlplay import config, run
from rlplay.core import Array, Mistake
from rlplay.lesson import Learning
from rlplay.nets import backbones
from rlplay.perception import data, gallery, segment
from rlplay.perception.segment import IGNORED, Segment, cross_entropy, weights
from rlplay.perception.source import SPLITS, Source
from rlplay.perception.task import Batch

KINDS = ("background", "square", "disc")
ENCODER = backbones.Config("small", width=0.25)


def source(picture: Array, mask: Array, kinds: tuple[str, ...] = KINDS) -> Source:
    """Return examples that are all in every split."""
    arrays = {"picture": picture, "mask": mask}
    return Source("shapes", arrays, dict.fromkeys(SPLITS, np.arange(len(mask))), kinds=kinds)


def noise(num: int = 20, size: tuple[int, int] = (16, 20), kinds: tuple[str, ...] = KINDS):
    random = np.random.default_rng(1)
    picture = random.integers(256, size=(num, 3, *size), dtype=np.uint8)
    return source(picture, random.integers(len(kinds), size=(num, *size), dtype=np.uint8), kinds)


def shapes(num: int = 8, side: int = 20) -> Source:
    """Return a square and a disc each, of the same colours, anywhere on a dark ground."""
    random = np.random.default_rng(2)
    picture = random.integers(0, 60, size=(num, 3, side, side), dtype=np.uint8)
    mask = np.zeros((num, side, side), np.uint8)
    rows, columns = np.mgrid[:side, :side]
    for i in range(num):
        (top, y), left, x = random.permutation([4, 15]), *random.integers(4, 16, 2)
        square = (abs(rows - top) <= 3) & (abs(columns - left) <= 3)
        disc = (rows - y) ** 2 + (columns - x) ** 2 <= 18
        mask[i][square], mask[i][disc] = 1, 2
        picture[i][:, square | disc] = random.integers(150, 255)
    return source(picture, mask)


def dots(num: int = 8, side: int = 16) -> Source:
    """Return one bright pixel each, anywhere."""
    picture = np.zeros((num, 1, side, side), np.uint8)
    mask = np.zeros((num, side, side), np.uint8)
    places = np.random.default_rng(3).integers(0, side, (num, 2))
    for i, (row, column) in enumerate(places):
        picture[i, 0, row, column], mask[i, row, column] = 255, 1
    return source(picture, mask, ("background", "dot"))


def made(found: Source, **settings: Any) -> Segment:
    torch.manual_seed(0)
    return segment.Config(**{"encoder": ENCODER, "channels": 8, **settings}).make(found)


def batch(task: Segment) -> Batch:
    return next(task.batches("train", 100))


def learned(task: Segment, updates: int, rate: float = 0.01) -> dict[str, float]:
    """Return how well a task does on the pictures it has learned from."""
    optimizer = torch.optim.Adam(task.parameters(), rate)
    for _ in range(updates):
        loss, _ = task.loss(batch(task))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        return task.eval().examine([batch(task)])


# What it measures.


class Said(Segment):
    """Says what it is told to."""

    def forward(self, picture: Tensor) -> Tensor:
        said, self.left = self.left[: len(picture)], self.left[len(picture) :]
        return F.one_hot(said, len(self.source.kinds)).permute(0, 3, 1, 2).float()


def examined(truth: Any, said: Any, kinds: tuple[str, ...] = KINDS, size: int = 100):
    """Return what is measured where these kinds [n, H, W] were found."""
    truth = np.array(truth, np.uint8)
    num, *shape = truth.shape
    task = Said(segment.Config(), noise(num, (shape[0] + 8, shape[1] + 8), kinds))
    task.left = torch.from_numpy(np.array(said, np.int64))
    batches = [
        {"picture": torch.zeros(num, 1), "mask": torch.from_numpy(truth)[i : i + size]}
        for i in range(0, num, size)
    ]
    for part in batches:
        part["picture"] = part["picture"][: len(part["mask"])]
    return task.examine(batches)


def test_jaccard_is_computed_by_hand():
    found = examined([[[0, 0, 1, 1], [0, 2, 2, 2]]], [[[0, 0, 0, 1], [1, 2, 2, 0]]])
    assert found["jaccard_background"] == pytest.approx(2 / 5)  # 3 there, 4 found, 2 of them both
    assert found["jaccard_square"] == pytest.approx(1 / 3)
    assert found["jaccard_disc"] == pytest.approx(2 / 3)
    assert found["jaccard"] == pytest.approx((2 / 5 + 1 / 3 + 2 / 3) / 3)
    assert found["accuracy"] == pytest.approx(5 / 8)


@pytest.mark.parametrize("size", [3, 100])
def test_what_is_found_is_what_scikit_learn_and_numpy_find(size):
    random = np.random.default_rng(4)
    truth = random.choice([0, 1, 2, IGNORED], size=(10, 9, 7))
    said = random.integers(3, size=truth.shape)
    found = examined(truth, said, size=size)
    known = truth != IGNORED
    each = metrics.jaccard_score(truth[known], said[known], average=None)
    assert [found[f"jaccard_{kind}"] for kind in KINDS] == pytest.approx(list(each), abs=1e-6)
    both = [((truth == k) & (said == k)).sum() for k in range(3)]
    either = [(((truth == k) | (said == k)) & known).sum() for k in range(3)]
    assert found["jaccard"] == pytest.approx(np.mean(np.divide(both, either)), abs=1e-6)
    assert found["accuracy"] == pytest.approx((truth == said).sum() / known.sum())


def test_kind_that_neither_is_there_nor_is_found_does_not_count():
    found = examined([[[0, 0, 1]]], [[[0, 0, 1]]])
    assert (found["jaccard"], found["kinds"]) == (1, 2)
    assert "jaccard_disc" not in found
    found = examined([[[0, 0, 1]]], [[[0, 2, 1]]])  # one wrong pixel of a kind that is not there
    assert found["kinds"] == 3
    assert found["jaccard_disc"] == 0


# What it learns from.


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_loss_is_the_weighed_cross_entropy_computed_by_hand(balance):
    task = made(noise(), balance=balance).eval()
    task.source.arrays["mask"][0, :5] = IGNORED  # pyright: ignore
    loss, found = task.loss(batch(task))
    logits = task(batch(task)["picture"]).detach().double().numpy()
    mask = batch(task)["mask"].numpy()
    log_share = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    total = norm = 0.0
    for k in range(3):
        total -= task.weight[k].item() * log_share[:, k][mask == k].sum()
        norm += task.weight[k].item() * (mask == k).sum()
    assert loss.item() == pytest.approx(total / norm, rel=1e-4)
    known = mask != IGNORED
    assert found["accuracy"].item() == pytest.approx((logits.argmax(1) == mask)[known].mean())


def test_ignored_pixels_teach_nothing():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    mask = torch.randint(3, (2, 4, 4))
    mask[0, 1] = IGNORED
    cross_entropy(logits, mask, torch.ones(3)).backward()
    assert logits.grad is not None
    assert (logits.grad[0, :, 1] == 0).all()
    assert (logits.grad[1] != 0).all()
    nothing = cross_entropy(logits, torch.full_like(mask, IGNORED), torch.ones(3))
    assert nothing.item() == 0


def test_weights_are_shares_to_a_power_with_mean_1_over_all_pixels():
    counts = np.array([900, 90, 10, 0])
    assert weights(counts, 0.0).tolist() == [1, 1, 1, 0]
    half = weights(counts, 0.5)
    assert half[1] / half[0] == pytest.approx(10**0.5)
    assert half[2] / half[1] == pytest.approx(3)
    whole = weights(counts, 1.0)
    assert whole[:3] * counts[:3] == pytest.approx(1000 / 3)  # all kinds weigh the same
    for each in (half, whole):
        assert (each * counts).sum() == pytest.approx(1000)


def test_what_is_learned_by_heart_is_known():
    found = learned(made(shapes()), updates=60)
    assert found["jaccard"] > 0.97
    assert found["accuracy"] > 0.98


@pytest.mark.parametrize("network", ["unet", "dilated"])
def test_shapes_that_were_never_seen_are_found_unless_the_masks_were_of_other_pictures(network):
    reached = []
    for turn in (0, 1) if network == "unet" else (0,):  # the second is the control
        found = shapes(24)
        found.splits.update(train=np.arange(18), test=np.arange(18, 24))
        mask = found.arrays["mask"]
        mask[:18] = np.roll(mask[:18], turn, axis=0)  # pyright: ignore
        task = made(found, network=network)
        learned(task, updates=60)
        with torch.inference_mode():
            reached.append(task.examine(task.batches("test", 100))["jaccard"])
    assert reached[0] > 0.75
    assert network == "dilated" or reached[1] < 0.45


def test_a_u_net_finds_one_pixel_and_an_fcn_32s_cannot():
    assert learned(made(dots()), 80)["jaccard_dot"] > 0.95
    assert learned(made(dots(), network="fcn32s"), 80)["jaccard_dot"] < 0.3


# What it refuses, and what it says.


def test_data_without_masks_are_refused():
    found = data.Config().make()
    with pytest.raises(Mistake, match="learns from the mask of every picture, but the data digits"):
        made(found)


def test_masks_of_another_size_are_refused():
    found = source(np.zeros((4, 3, 16, 20), np.uint8), np.ones((4, 20, 16), np.uint8))
    with pytest.raises(Mistake, match="masks of the data shapes have 20x16 pixels and their pic"):
        made(found)


def test_labels_beyond_the_kinds_are_refused_in_every_split():
    found = noise()
    found.arrays["mask"][3, 2, 1] = 7  # pyright: ignore
    with pytest.raises(Mistake, match="has the number 7, but its 3 kinds are numbered 0 to 2"):
        made(found)
    found.splits["train"] = np.arange(4, 20)
    task = made(found).eval().requires_grad_(False)
    with pytest.raises(Mistake, match="has the number 7"):
        task.examine(task.batches("test", 4))


@pytest.mark.parametrize(("number", "what"), [(0, "background"), (IGNORED, "to be ignored")])
def test_masks_of_nothing_are_refused(number, what):
    found = noise()
    found.arrays["mask"][:] = number  # pyright: ignore
    with pytest.raises(Mistake, match=f"every pixel of the 20 masks to learn from is {what}"):
        made(found)


def test_kind_without_a_pixel_in_the_training_is_announced_and_learned_around():
    found = noise(kinds=(*KINDS, "comet"))
    assert made(found).remark == ""
    mask = found.arrays["mask"][:]
    found.arrays["mask"][:] = np.where(mask == 3, 0, mask)  # pyright: ignore
    task = made(found)
    assert task.remark.startswith("no pixel of the training is comet:")
    assert task.loss(batch(task))[0].isfinite()
    assert task.weight.isfinite().all()


def test_training_says_which_kind_it_cannot_learn_and_draws_and_tests(tmp_path, monkeypatch):
    found = noise(kinds=(*KINDS, "comet"))
    found.arrays["mask"][:] %= 3  # pyright: ignore
    monkeypatch.setattr(data.Config, "make", lambda self, rules: found)
    flags = ["--epochs=1", "--task.encoder.name=small", "--device=cpu"]
    lesson: Any = config.load_any("pong/segment", flags)
    said: list[str] = []
    learning = Learning(lesson, said.append)
    folder = run.create(lesson, learning.spec, tmp_path)
    assert learning.run(folder) == 0
    assert said[0].startswith("no pixel of the training is comet:")
    assert "mean Jaccard" in said[-1]
    assert len(list(folder.pictures.glob("test-masks-*.png"))) == 1


def test_pictures_too_small_for_the_encoder_are_refused():
    with pytest.raises(Mistake, match="the vgg11 encoder needs pictures of at least 32 pixels"):
        made(noise(), encoder=backbones.Config("vgg11"))


def test_missing_torchmetrics_is_one_sentence(monkeypatch):
    task = made(noise()).eval()
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics.classification", None)
    with pytest.raises(Mistake, match="the task segment needs the module 'torchmetrics'"):
        task.examine(task.batches("test", 4))


# What it shows.


def test_drawing_shows_truth_and_what_was_found_in_the_colours_of_the_kinds():
    random = np.random.default_rng(5)
    picture = random.integers(256, size=(1, 3, 80, 90), dtype=np.uint8)
    truth, said = np.zeros((2, 1, 80, 90), np.uint8)
    truth[0, 10:30, 10:30], said[0, 10:20, 10:30] = 1, 1
    truth[0, 50:60, 50:60], said[0, 50:60, 50:60] = 2, 1
    said[0, 70:75, 5:10] = 2
    drawn = segment.drawing(picture, truth, said, KINDS)

    def count(ink: gallery.Ink) -> int:
        return int((drawn[drawn.shape[0] - 110 :] == ink).all(2).sum())  # below the legend

    square, disc = gallery.inks(2)
    assert count(square) == 400 + 200 + 100
    assert count(disc) == 100 + 25
    assert count(segment.MISSED) == 200
    assert count(segment.INVENTED) == 25
    assert count(segment.MISTAKEN) == 100


def test_legend_breaks_into_rows_that_are_as_wide_as_it_may_be():
    entries = [(f"kind {i}", ink) for i, ink in enumerate(gallery.inks(20))]
    wide, narrow = gallery.legend(entries, 2000), gallery.legend(entries, 300)
    assert (wide.shape[1], narrow.shape[1]) == (2000, 300)
    assert narrow.shape[0] > wide.shape[0]
    assert len(set(gallery.inks(20))) == 20
    for _, ink in entries:
        assert (narrow == ink).all(2).sum() >= 100
