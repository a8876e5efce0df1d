"""Pictures with labels, to learn to see from: scikit-learn's digits; recorded play of a game;
boards in many styles; and MNIST, CIFAR-10, Pascal VOC (Everingham et al. 2010) and a folder of
one's own by torchvision's loaders.

All of them become arrays and three splits, which depend on `Config.seed` alone. It knows
no task: which kinds of label one needs, the task says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from rlplay.core import Array, Mistake, Range
from rlplay.perception.extras import torchvision
from rlplay.perception.pictures import grey, read, resized, unreadable
from rlplay.perception.source import Source

if TYPE_CHECKING:
    from rlplay.game import BoardGame

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)


@dataclass(frozen=True)
class Config:
    name: Literal["digits", "frames", "boards", "mnist", "cifar10", "voc", "folder"] = "digits"
    """digits are the 1,797 handwritten ones of scikit-learn, always there; frames what `rlplay
    collect-frames` has recorded; boards positions of a board game in random styles; voc is Pascal
    VOC 2012; folder has a folder of pictures for each class."""
    folder: str = "data"
    """Where mnist, cifar10 and voc lie or are fetched to; or the folder of pictures, or of frames,
    or with several folders of frames, itself."""
    fetch: bool = True
    """Fetch mnist, cifar10 and voc where they are not there yet."""
    size: Annotated[int, Range(0, 4096)] = 0
    """Height and width that pictures are brought to; 0 for as they are, and for 128 where they
    differ in size (voc and folder), 64 for boards."""
    grey: bool = False
    """One channel instead of the three colours."""
    game: str = "connect_four"
    """Of boards: whose, in one word, such as gomoku:size=9."""
    num_boards: Annotated[int, Range(1)] = 6000
    """Of boards: how many, over all splits."""
    num_stacked: Annotated[int, Range(1, 16)] = 1
    """Of frames: moments in one picture, oldest first, as agents see them."""
    validation: Annotated[float, Range(0, 0.9)] = 0.1
    """Share of what is not kept for the test that is not learned from, but tells when to stop."""
    test: Annotated[float, Range(0, 0.9)] = 0.2
    """Share kept for the test, where the data do not say which."""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """Seed of the splits, apart from that of the training: two trainings see the same test."""

    @property
    def world(self) -> str:
        """What runs are named after."""
        if self.name == "boards":
            return self.game.partition(":")[0]
        return Path(self.folder).name if self.name in ("frames", "folder") else self.name

    def make(self, rules: Callable[[str], BoardGame] | None = None) -> Source:
        """Load the data; boards need the `rules` of a game written in one word. Raises Mistake
        where they are not there, not readable or too few."""
        if self.name == "boards":
            from rlplay.perception import boards

            assert rules is not None, "boards are made by the rules of their game"
            game, shares = rules(self.game), (self.validation, self.test)
            return boards.source(game, self.num_boards, self.size or 64, shares, self.seed)
        if self.name == "frames":
            from rlplay.perception import recorded

            view = recorded.View(self.size, self.grey, self.num_stacked)
            return recorded.source(Path(self.folder), view, self.validation, self.test, self.seed)
        if self.name == "digits":
            arrays, tested, classes = digits()
        elif self.name == "folder":
            arrays, tested, classes = folder(Path(self.folder), self.size or 128)
        elif self.name == "voc":
            arrays, tested, classes = voc(self)
        else:
            arrays, tested, classes = benchmark(self)
        if self.grey:
            arrays["picture"] = grey(arrays["picture"])
        if self.size and arrays["picture"].shape[2:] != (self.size, self.size):
            arrays["picture"] = resized(arrays["picture"], self.size)
        kinds = arrays.get("label", np.zeros(len(arrays["picture"]), np.int64))
        splits = self.split(kinds, tested)
        if "mask" in arrays:
            return Source(self.name, arrays, splits, kinds=classes)
        return Source(self.name, arrays, splits, classes)

    def split(self, kinds: Array, tested: Array | None = None) -> dict[str, Array]:
        """Return the numbers of each split, of each of `kinds` [n] int64 the same share. `tested`
        [n] bool are the data's own test, if they have one. Raises Mistake where a split would be
        empty."""
        order = np.random.default_rng([*b"split", self.seed]).permutation(len(kinds))
        order = order[np.argsort(kinds[order], kind="stable")]  # by class, at random within each
        place = np.empty(len(kinds), np.int64)  # among those of its class
        _, counts = np.unique(kinds, return_counts=True)
        place[order] = np.concatenate([np.arange(count) for count in counts])
        spread = (place + 0.5) / counts[np.searchsorted(np.unique(kinds), kinds)]  # [n] 0..1
        test = spread < self.test if tested is None else tested
        rest = (spread - self.test) / (1 - self.test) if tested is None else spread
        validation = ~test & (rest < self.validation)
        masks = {"train": ~test & ~validation, "validation": validation, "test": test}
        splits = {name: np.flatnonzero(mask) for name, mask in masks.items()}
        for name, index in splits.items():
            if not len(index):
                raise Mistake(
                    f"none of the {len(kinds)} pictures would be in the split {name!r}: set"
                    " data.validation and data.test between 0 and 1, or take more pictures"
                )
        return splits


Loaded = tuple[dict[str, Array], Array | None, tuple[str, ...]]
"""Arrays, which examples are the data's own test, and the names of the classes."""


def digits() -> Loaded:
    """Return scikit-learn's handwritten digits (Alpaydin & Kaynak 1998), 8 x 8, 17 shades."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    pictures = np.round(found.images * (255 / 16)).astype(np.uint8)[:, None]
    label = found.target.astype(np.int64)
    return {"picture": pictures, "label": label}, None, tuple(map(str, range(10)))


def benchmark(config: Config) -> Loaded:
    """Return MNIST (LeCun et al. 1998) or CIFAR-10 (Krizhevsky 2009), with the test they have."""
    datasets = torchvision(f"the data {config.name}").datasets
    kind = {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10}[config.name]
    parts = [
        fetched(config, lambda fetch, train=train: kind(config.folder, train, download=fetch))
        for train in (True, False)
    ]
    pictures = np.concatenate([np.asarray(part.data) for part in parts])
    pictures = pictures[:, None] if pictures.ndim == 3 else pictures.transpose(0, 3, 1, 2)
    label = np.concatenate([np.asarray(part.targets, np.int64) for part in parts])
    tested = np.arange(len(label)) >= len(parts[0])
    names = tuple(name.partition(" - ")[0] for name in parts[0].classes)  # of MNIST "7 - seven"
    return {"picture": np.ascontiguousarray(pictures), "label": label}, tested, names


def voc(config: Config) -> Loaded:
    """Return Pascal VOC 2012 with the mask of each picture; its validation set is the test."""
    datasets = torchvision(f"the data {config.name}").datasets
    size, pictures, masks, num = config.size or 128, [], [], []
    for part in ("train", "val"):
        found = fetched(
            config,
            lambda fetch, part=part: datasets.VOCSegmentation(
                config.folder, image_set=part, download=fetch
            ),
        )
        pictures += [read(Path(file), size) for file in found.images]
        pairs = zip(found.masks, found.images, strict=True)
        masks += [read_mask(Path(mask), Path(image), size) for mask, image in pairs]
        num.append(len(found))
    tested = np.arange(sum(num)) >= num[0]
    return {"picture": np.stack(pictures), "mask": np.stack(masks)}, tested, VOC_CLASSES


def read_mask(file: Path, picture: Path, size: int) -> Array:
    """Return the mask [size, size] uint8 of a picture of Pascal VOC. Raises Mistake where the file
    holds none, or does not fit the picture."""
    from PIL import Image

    try:
        with Image.open(file) as opened, Image.open(picture) as beside:
            if opened.mode not in ("P", "L") or opened.size != beside.size:
                raise Mistake(
                    f"{file} does not fit {picture}: a mask has the size of its picture and one"
                    " number for each pixel; mend it, or take it off the lists in ImageSets"
                )
            mask = np.asarray(opened.resize((size, size), Image.Resampling.NEAREST), np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise unreadable(file) from error
    foreign = mask[(mask >= len(VOC_CLASSES)) & (mask != 255)]
    if len(foreign):
        raise Mistake(
            f"{file} has a class {foreign[0]}, but Pascal VOC has 0 to {len(VOC_CLASSES) - 1}, and"
            " 255 for none: mend it, or take it off the lists in ImageSets"
        )
    return mask


def folder(path: Path, size: int) -> Loaded:
    """Return the pictures below `path`, a folder for each class. Raises Mistake where there are
    none, or one cannot be read."""
    datasets = torchvision("the data folder").datasets
    try:
        found = datasets.ImageFolder(str(path))
    except FileNotFoundError as error:
        raise Mistake(
            f"no pictures in {path}: it needs a folder for each class with pictures in it, such as"
            f" {path / 'cat'}/1.png; set data.folder"
        ) from error
    files = [(Path(file), label) for file, label in found.samples]
    pictures = np.stack([read(file, size) for file, _ in files])
    label = np.array([label for _, label in files], np.int64)
    return {"picture": pictures, "label": label}, None, tuple(found.classes)


def fetched(config: Config, make: Callable[[bool], Any]) -> Any:
    """Return what a loader makes, given whether to fetch: where the files are there, it is not
    asked to. Raises Mistake where they are not, or not whole, and could not be fetched."""
    failed: Exception | None = None
    for fetch in (False, True)[: 1 + config.fetch]:
        try:
            return make(fetch)
        except (OSError, RuntimeError, ValueError, AssertionError) as error:  # torchvision's own
            failed = error
    how = "could not be fetched" if config.fetch else "data.fetch is off"
    raise Mistake(
        f"{config.name} is not in {config.folder!r}, or not whole, and {how}: put its files there,"
        " as torchvision lays them, or set data.folder to where they are"
    ) from failed
