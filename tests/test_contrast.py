"""Contrast: pairs within their episodes, losses by hand, patches where they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from rlplay.core import Mistake
from rlplay.nets import backbones
from rlplay.perception import contrast, neighbours
from rlplay.perception.source import Source

SMALL = backbones.Config("small", width=0.1)


def moments(episode, splits) -> Source:
    """Return pictures 1 x 12 x 12 whose first pixels are their number, with noise elsewhere."""
    episode = np.asarray(episode)
    picture = np.random.default_rng(0).integers(256, size=(len(episode), 1, 12, 12), dtype=np.uint8)
    picture[:, 0, 0, 0], picture[:, 0, 0, 1] = divmod(np.arange(len(episode)), 256)
    return Source("noise", {"picture": picture, "episode": episode}, splits)


@given(st.lists(st.integers(1, 5), min_size=3, max_size=9), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_pairs_are_exactly_the_neighbours_within_an_episode_and_split(lengths, random):
    episode = np.repeat(np.arange(len(lengths)), lengths)
    index = np.array([i for i in range(len(episode)) if random.random() < 0.8], np.int64)
    wanted = [i for i in index if i + 1 in index and episode[i] == episode[i + 1]]
    assert contrast.followed(index, episode[index]).tolist() == wanted


@pytest.mark.parametrize("kind", ["temporal", "siamese"])
def test_batches_are_moments_and_what_followed_them(kind):
    rest = np.arange(9, 12)
    splits = {"train": np.array([0, 1, 2, 3, 5, 6, 7, 8]), "validation": rest, "test": rest}
    source = moments([0] * 5 + [1] * 4 + [2] * 3, splits)
    task = contrast.Config(kind=kind, encoder=SMALL).make(source)
    (batch,) = task.batches("train", 100, np.arange(task.num_examples("train"))[::-1])
    number = batch["picture"][:, 0, 0, 1].tolist()
    assert number == [7, 6, 5, 2, 1, 0, *(8, 7, 6, 3, 2, 1)]


def test_info_nce_is_log_softmax_by_hand():
    scores = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_hand = [
        -np.log(np.exp(s[i, i]) / np.exp(s[i]).sum()) for s in scores.numpy() for i in range(5)
    ]
    assert contrast.info_nce(scores).item() == pytest.approx(np.mean(by_hand))
    transposed = contrast.info_nce(scores.transpose(1, 2)).item()
    assert transposed != pytest.approx(np.mean(by_hand))  # rows ask, columns answer


def test_margin_loss_is_that_of_hadsell():
    distance = torch.tensor([[0.5, 0.2, 2.0], [0.9, 0.0, 1.0], [0.4, 3.0, 1.0]])
    near, far = [0.25, 0.0, 1.0], [0.64, 0.0, 0.01, 0.0, 0.36, 0.0]
    wanted = np.mean(near) / 2 + np.mean(far) / 2
    assert contrast.margin_loss(distance, 1.0).item() == pytest.approx(wanted)


def test_patches_lie_around_the_middle_as_the_classes_say():
    height, width = 30, 24
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    picture = torch.stack([rows, columns])[None].repeat(20, 1, 1, 1).to(torch.uint8)
    arrays = {"picture": picture.numpy()}
    source = Source("grid", arrays, dict.fromkeys(("train", "validation", "test"), np.arange(20)))
    task = contrast.Config(kind="position", encoder=SMALL).make(source)
    assert isinstance(task, contrast.Position)
    cut = contrast.patches(picture, task.places(20, None), task.sides).long()
    corner = cut[:, :, :, 0, 0]  # [20, 9, 2], where each was cut out
    assert (cut[..., 0, :, :].amax((1, 2, 3)) < height).all()
    assert len(corner.unique(dim=0)) > 1  # anywhere in the picture
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    for place, way in zip(others, contrast.AROUND, strict=True):
        assert ((corner[:, place] - corner[:, 4]).sign() == torch.tensor(way)).all()
        gap = (corner[:, place] - corner[:, 4]).abs().amax(1)
        assert (gap >= min(task.sides)).all()  # none overlap


def test_standardized_features_are_the_same_whoever_else_is_in_the_batch_norm():
    now, then = torch.randn(2, 7, 3, 4, generator=torch.Generator().manual_seed(1)) * 5 + 2
    one, other = contrast.standardized(now, then)
    both = torch.cat([now, then]).flatten(0, 1)
    wanted = F.batch_norm(both, None, None, training=True)
    assert torch.allclose(torch.cat([one, other]).flatten(0, 1), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["temporal", "siamese", "position"])
def test_learning_finds_what_belongs_together(kind):
    """Each episode shows a square in a place of its own."""
    random = np.random.default_rng(0)
    episode = np.repeat(np.arange(48), 4)
    picture = np.zeros((len(episode), 1, 16, 16), np.uint8)
    for number, which in enumerate(episode):
        row, column = divmod(which * 4, 14)[0] % 14, which * 5 % 14
        picture[number, 0, row : row + 3, column : column + 3] = 200 + random.integers(50)
    if kind == "position":  # the brighter, the further down; the striped, the further right
        rows, columns = np.mgrid[:16, :16]
        picture[:, 0] = rows * 8 + columns * (columns % 2) * 8
    split = {
        "train": np.arange(128),
        "validation": np.arange(128, 192),
        "test": np.arange(128, 192),
    }
    source = Source("squares", {"picture": picture, "episode": episode}, split)
    torch.manual_seed(0)
    task = contrast.Config(kind=kind, encoder=SMALL, features=32).make(source)
    adam = torch.optim.Adam(task.parameters(), 3e-3)
    before = task.eval().examine(task.batches("train", 64))["loss"]
    task.train()
    for _ in range(60 if kind == "position" else 25):
        loss, _ = task.loss(
            next(task.batches("train", 64, random.permutation(len(split["train"]) // 2)))
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.inference_mode():
        after = task.eval().examine(task.batches("train", 64))
    assert after["loss"] < 0.8 * before


@pytest.mark.parametrize("kind", ["temporal", "siamese"])
def test_pictures_without_order_are_refused(kind):
    source = moments([0, 0, 0], dict.fromkeys(("train", "validation", "test"), np.arange(3)))
    pictures = Source("digits", {"picture": source.arrays["picture"]}, source.splits)
    with pytest.raises(Mistake, match="order of time"):
        contrast.Config(kind=kind, encoder=SMALL).make(pictures)
    lonely = moments([0, 1, 2], source.splits)
    with pytest.raises(Mistake, match="followed"):
        contrast.Config(kind=kind, encoder=SMALL).make(lonely)


def test_position_refuses_encoders_that_cannot_look_at_patches():
    source = moments([0, 0, 0], dict.fromkeys(("train", "validation", "test"), np.arange(3)))
    for name in ("mlp", "alexnet", "nature"):
        with pytest.raises(Mistake):
            contrast.Config(kind="position", encoder=backbones.Config(name)).make(source)


def test_nearest_are_by_cosine_from_the_mean():
    known = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0], [2.0, 0.1]])
    distance = neighbours.distances(known, known)
    assert neighbours.nearest(distance, 1)[:, 0].tolist() == [0, 1, 2, 3]
    centred = known.numpy() - known.numpy().mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    assert np.allclose(distance.numpy(), 1 - unit @ unit.T, atol=1e-6)
