"""Laws of rlplay/perception/data.py and augment.py: splits, files, and pictures that change with
their masks and boxes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rlplay.core import Mistake
from rlplay.perception import augment, data


def test_splits_share_nothing_and_miss_nothing():
    source = data.Config().make()
    index = np.concatenate([source.splits[name] for name in data.SPLITS])
    assert sorted(index) == list(range(1797))
    shares = [len(source.splits[name]) / 1797 for name in data.SPLITS]
    assert shares == pytest.approx([0.72, 0.08, 0.2], abs=0.005)
    for index in source.splits.values():  # of each class the same share
        counts = np.bincount(source.arrays["label"][index])
        assert counts.max() - counts.min() <= 0.05 * len(index)


def test_splits_depend_on_their_seed_alone():
    one, again, other = (data.Config(seed=seed).make().splits["test"] for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_own_test_of_the_data_is_kept():
    kinds, tested = np.zeros(100, np.int64), np.arange(100) >= 80
    splits = data.Config(validation=0.25).split(kinds, tested)
    assert list(splits["test"]) == list(range(80, 100))
    assert len(splits["validation"]) == pytest.approx(20, abs=8)
    assert set(splits["train"]) | set(splits["validation"]) == set(range(80))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three classes, ten pictures each, of several sizes and kinds."""
    pytest.importorskip("torchvision")
    random = np.random.default_rng(0)
    for name, ink in (("blue", (0, 0, 255)), ("green", (0, 255, 0)), ("red", (255, 0, 0))):
        (tmp_path / name).mkdir()
        for i in range(10):
            size = tuple(random.integers(8, 30, 2))
            picture = Image.new("RGB", size, ink)
            picture.convert("P" if i % 2 else "RGB").save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_folder_of_pictures_becomes_classes(folder):
    source = data.Config("folder", str(folder), size=16).make()
    assert source.classes == ("blue", "green", "red")
    assert source.shape == (3, 16, 16)
    channel = source.arrays["picture"].mean((2, 3)).argmax(1)
    assert np.array_equal(channel, 2 - source.arrays["label"])
    assert data.Config("folder", str(folder), size=16, grey=True).make().shape == (1, 16, 16)


@pytest.mark.parametrize("content", [b"", b"not a picture", "cut short"])
def test_unreadable_picture_is_named_in_one_sentence(folder, content):
    if content == "cut short":
        Image.fromarray(
            np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
        ).save(folder / "red" / "3.png")
        content = (folder / "red" / "3.png").read_bytes()[:2000]
    (folder / "red" / "3.png").write_bytes(content)
    with pytest.raises(Mistake, match=r"red/3.png cannot be read as a picture"):
        data.Config("folder", str(folder)).make()


def test_empty_class_or_folder_is_one_sentence(folder, tmp_path):
    with pytest.raises(Mistake, match="a folder for each class"):
        data.Config("folder", str(tmp_path / "nowhere")).make()
    (folder / "yellow").mkdir()
    with pytest.raises(Mistake, match="a folder for each class"):
        data.Config("folder", str(folder)).make()


@pytest.mark.parametrize("name", ["mnist", "cifar10", "voc"])
def test_data_that_are_not_there_are_one_sentence(tmp_path, name):
    pytest.importorskip("torchvision")
    with pytest.raises(Mistake, match=rf"{name} is not in .* data.fetch is off"):
        data.Config(name, str(tmp_path), fetch=False).make()


def test_missing_torchvision_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)
    for make in (data.Config("mnist").make, lambda: augment.Config(shift=0.1).make(8, 8)):
        with pytest.raises(Mistake, match=r"pip install -e '.\[perception\]'"):
            make()
    assert data.Config().make().shape == (1, 8, 8)  # the digits need nothing


def square(left: int, top: int) -> dict[str, torch.Tensor]:
    """Return a bright square of 6 x 6 in a dark picture of 32 x 32, with its mask and its box."""
    mask = torch.zeros(1, 32, 32, dtype=torch.uint8)
    mask[:, top : top + 6, left : left + 6] = 1
    box = torch.tensor([[[left, top, left + 6.0, top + 6.0]]])
    return {"picture": 255 * mask[:, None], "mask": mask, "boxes": box, "label": torch.tensor([3])}


@pytest.mark.parametrize(
    "config",
    [
        augment.Config(shift=0.2),
        augment.Config(scale=0.3),
        augment.Config(flip=True),
        augment.Config(crop=0.6),
        augment.Config(shift=0.1, scale=0.2, flip=True, brightness=0.2),
    ],
)
def test_masks_and_boxes_follow_their_pictures(config):
    pytest.importorskip("torchvision")
    change = config.make(32, 32)
    assert change is not None
    moved = 0
    for seed in range(20):
        torch.manual_seed(seed)
        before = square(10, 12)
        after = change(before)
        assert after["label"] == 3
        bright = after["picture"][0, 0] > 100
        assert (bright != after["mask"][0].bool()).sum() <= 24  # rims are blurred
        rows, columns = torch.nonzero(bright, as_tuple=True)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert after["boxes"][0, 0].tolist() == pytest.approx([float(x) for x in seen], abs=2)
        moved += not torch.equal(after["mask"], before["mask"])
    assert moved > 5


def test_each_picture_draws_its_own_change():
    pytest.importorskip("torchvision")
    change = augment.Config(shift=0.3, noise=0.1).make(32, 32)
    assert change is not None
    one = square(13, 12)
    both = {name: torch.cat([tensor, tensor]) for name, tensor in one.items()}
    torch.manual_seed(0)
    first = change(both)
    assert not torch.equal(first["mask"][0], first["mask"][1])
    torch.manual_seed(0)
    assert torch.equal(change(both)["picture"], first["picture"])
    assert augment.Config().make(32, 32) is None
