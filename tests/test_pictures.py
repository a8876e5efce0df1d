"""Laws of rlplay/perception/data.py and augment.py: splits, files, and pictures that change with
their masks and boxes."""

from __future__ import annotations

import hashlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rlplay.core import Mistake
from rlplay.perception import augment, data
from rlplay.perception.source import SPLITS


def test_splits_share_nothing_and_miss_nothing():
    source = data.Config().make()
    index = np.concatenate([source.splits[name] for name in SPLITS])
    assert sorted(index) == list(range(1797))
    shares = [len(source.splits[name]) / 1797 for name in SPLITS]
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
    with pytest.raises(Mistake, match="a folder for each class"):
        data.Config("folder", str(folder / "red" / "1.png")).make()
    (folder / "yellow").mkdir()
    with pytest.raises(Mistake, match="a folder for each class"):
        data.Config("folder", str(folder)).make()


@pytest.mark.parametrize("name", ["mnist", "cifar10", "voc"])
def test_data_that_are_not_there_are_one_sentence(tmp_path, name):
    pytest.importorskip("torchvision")
    with pytest.raises(Mistake, match=rf"{name} is not in .* data.fetch is off"):
        data.Config(name, str(tmp_path), fetch=False).make()


def idx(path: Path, array: np.ndarray) -> None:
    """Write an array [...] uint8 as MNIST's files hold theirs: a magic number, sizes, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = np.array([0x0800 + array.ndim, *array.shape], ">i4").tobytes()
    path.write_bytes(head + array.tobytes())


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A folder with an MNIST of 60 pictures and 20 to test."""
    pytest.importorskip("torchvision")
    random, raw = np.random.default_rng(0), tmp_path / "MNIST" / "raw"
    for name, num in (("train", 60), ("t10k", 20)):
        pictures = random.integers(256, size=(num, 28, 28), dtype=np.uint8)
        idx(raw / f"{name}-images-idx3-ubyte", pictures)
        idx(raw / f"{name}-labels-idx1-ubyte", (np.arange(num) % 10).astype(np.uint8))
    return tmp_path


@pytest.mark.parametrize("fetch", [False, True])
def test_mnist_is_read_as_torchvision_lays_it(mnist, fetch):
    source = data.Config("mnist", str(mnist), fetch=fetch).make()
    assert source.shape == (1, 28, 28)
    assert source.classes == tuple("0123456789")
    assert source.splits["test"].tolist() == list(range(60, 80))
    assert np.asarray(source.arrays["label"])[50:70].tolist() == [*range(10), *range(10)]
    raw = (mnist / "MNIST" / "raw" / "train-images-idx3-ubyte").read_bytes()[16:]
    assert source.arrays["picture"][3].tobytes() == raw[3 * 784 : 4 * 784]


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("left", [0, 3, 50])
def test_mnist_cut_short_is_one_sentence(mnist, name, left):
    path = mnist / "MNIST" / "raw" / name
    path.write_bytes(path.read_bytes()[: min(left, path.stat().st_size - 1)])
    with pytest.raises(Mistake, match=r"mnist is not in .*, or not whole, and data.fetch is off"):
        data.Config("mnist", str(mnist), fetch=False).make()


def test_cifar10_is_read_as_torchvision_lays_it(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    random, folder = np.random.default_rng(0), tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch", "batches.meta"]
    sums, planes = {}, random.integers(256, size=(6, 10, 3072), dtype=np.uint8)
    for i, name in enumerate(names):
        entry = {"data": planes[min(i, 5)], "labels": [*range(10)]}
        if name == "batches.meta":
            entry = {"label_names": ["plane", *"bcdefghij"]}
        (folder / name).write_bytes(pickle.dumps(entry))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    kind = datasets.CIFAR10
    monkeypatch.setattr(kind, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(kind, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(kind, "meta", meta)
    source = data.Config("cifar10", str(tmp_path), fetch=False).make()
    assert source.shape == (3, 32, 32)
    assert source.classes == ("plane", *"bcdefghij")
    assert source.splits["test"].tolist() == list(range(50, 60))
    assert np.array_equal(source.arrays["picture"][12].ravel(), planes[1, 2])
    (folder / "data_batch_2").write_bytes((folder / "data_batch_2").read_bytes()[:-9])
    with pytest.raises(Mistake, match=r"cifar10 is not in .*, or not whole"):
        data.Config("cifar10", str(tmp_path), fetch=False).make()


@pytest.fixture
def pascal(tmp_path: Path) -> Path:
    """A folder with a Pascal VOC of six pictures and two to test, 30 x 20, and their masks."""
    pytest.importorskip("torchvision")
    home, random = tmp_path / "VOCdevkit" / "VOC2012", np.random.default_rng(0)
    for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (home / name).mkdir(parents=True)
    for part, names in (("train", "abcdef"), ("val", "gh")):
        (home / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            picture = random.integers(256, size=(20, 30, 3), dtype=np.uint8)
            Image.fromarray(picture).save(home / "JPEGImages" / f"{name}.jpg")
            mask = np.full((20, 30), 255, np.uint8)
            mask[:, :15] = ord(name) - ord("a")
            coloured = Image.fromarray(mask)
            coloured.putpalette(bytes(range(256)) * 3)
            coloured.save(home / "SegmentationClass" / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize("fetch", [False, True])
def test_pascal_voc_is_read_as_torchvision_lays_it(pascal, fetch):
    source = data.Config("voc", str(pascal), fetch=fetch, size=16).make()
    assert source.shape == (3, 16, 16)
    assert source.kinds[:2] == ("background", "aeroplane")
    assert len(source.kinds) == 21
    assert source.splits["test"].tolist() == [6, 7]
    for number, mask in enumerate(np.asarray(source.arrays["mask"])):
        assert (mask[:, :8] == number).all()
        assert (mask[:, 8:] == 255).all()
    assert data.Config("voc", str(pascal), fetch=False).make().shape == (3, 128, 128)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((20, 29), np.uint8), "does not fit .*b.jpg: a mask has the size of its picture"),
        (np.zeros((20, 30, 3), np.uint8), "does not fit .*one number for each pixel"),
        (np.full((20, 30), 21, np.uint8), "has a class 21, but Pascal VOC has 0 to 20, and 255"),
        (b"foreign", "b.png cannot be read as a picture"),
        (None, "b.png cannot be read as a picture"),
    ],
)
def test_mask_that_does_not_fit_its_picture_is_one_sentence(pascal, mask, words):
    path = pascal / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "b.png"
    path.unlink()
    if isinstance(mask, bytes):
        path.write_bytes(mask)
    elif mask is not None:
        Image.fromarray(mask).save(path)
    with pytest.raises(Mistake, match=words):
        data.Config("voc", str(pascal), fetch=False, size=16).make()


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


@pytest.mark.parametrize("num_channels", [1, 2, 3, 6])
def test_all_moments_of_a_picture_are_changed_alike(num_channels):
    pytest.importorskip("torchvision")
    picture = torch.full((8, num_channels, 16, 16), 100, dtype=torch.uint8)
    change = augment.Config(brightness=0.3).make(16, 16)
    assert change is not None
    torch.manual_seed(0)
    brightness = change({"picture": picture})["picture"].flatten(1).float()
    assert (brightness == brightness[:, :1]).all()
    assert len(set(brightness[:, 0].tolist())) > 4
    assert 70 <= brightness.min() < 100 < brightness.max() <= 130
    change = augment.Config(0.1, 10, 0.1, 0.8, True, 0.3, 0.1).make(16, 16)
    assert change is not None
    assert change({"picture": picture})["picture"].shape == picture.shape


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


def test_labels_of_places_refuse_pictures_that_are_moved():
    pytest.importorskip("torchvision")
    for label in ("variables", "squares"):
        for moved in (
            augment.Config(flip=True),
            augment.Config(shift=0.1),
            augment.Config(crop=0.5),
        ):
            with pytest.raises(Mistake, match=f"^{label} say where"):
                moved.make(8, 8, labels={"picture", label})
        assert augment.Config(noise=0.1, brightness=0.2).make(8, 8, labels={label})
    assert augment.Config(flip=True).make(8, 8, labels={"picture", "mask", "boxes"})
