"""Recorded play as examples to learn to see from: the moments of `rlplay collect-frames`, with all
that the game itself tells of them.

Pictures come as a person sees them, or as an agent does: grey, small, several moments in a row.
What labels say of places follows the picture's size. Everything is made when it is asked for: of
pictures in full size, no more than a batch is ever in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from rlplay.core import Array, Mistake
from rlplay.perception.frames import MANIFEST, NO_ACTION, Frames, split
from rlplay.perception.objects import class_map, games, state
from rlplay.perception.pictures import grey, resized
from rlplay.perception.source import Column, Source


@dataclass(frozen=True)
class View:
    """How moments are shown."""

    size: int = 0
    """Height and width, pixels; 0 for the emulator's own."""
    grey: bool = False
    num_stacked: int = 1
    """Moments in a row, oldest first, black before the first of an episode."""


def source(folder: Path, view: View, validation: float, test: float, seed: int) -> Source:
    """Return the moments of a dataset, or of all datasets in a folder, in the order in which they
    were played; episodes stay whole, and of every dataset a share is in each split. The label is
    the action taken next, or in datasets of several games the game. Raises Mistake where nothing
    was recorded, or the screens differ in size."""
    own = (folder / MANIFEST).exists()
    folders = [folder] if own else [path.parent for path in sorted(folder.glob(f"*/{MANIFEST}"))]
    if not folders:
        raise Mistake(
            f"there are no recorded frames in {str(folder)!r}: set data.folder to what `rlplay"
            " collect-frames GAME` has written, such as datasets/pong"
        )
    play = Play([Frames(path) for path in folders], view)
    names = list(dict.fromkeys(part.game for part in play.parts))
    arrays: dict[str, Column] = {"picture": Pictures(play), "episode": play.episode}
    kinds: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    places: dict[str, float] = {}
    if len(names) > 1:
        each = [names.index(part.game) for part in play.parts]
        classes, arrays["label"] = tuple(names), np.repeat(each, play.lengths)
        labelled = np.ones(len(play.episode), bool)
    else:
        classes = tuple(play.parts[0].protocol["action_names"])
        action = play.gathered("action")
        labelled = action != NO_ACTION  # an episode's last moment has none
        arrays["label"] = np.where(labelled, action, 0).astype(np.int64)
        if names[0] in games():
            labels = play.parts[0].labels
            kinds, variables = ("background", *labels.KINDS), tuple(labels.VARIABLES)
            found = Labels(play)
            arrays |= {"mask": Masks(found), "boxes": Boxes(found), "kind": Kinds(found)}
            arrays["variables"] = state(play.gathered("ram"), labels.VARIABLES)
            steps = getattr(labels, "STEPS", {})
            places = {v: steps.get(v, 1.0) for v in variables if v.endswith(("_x", "_y"))}
    splits = play.splits(validation, test, seed)
    splits = {name: index[labelled[index]] for name, index in splits.items()}
    return Source("-".join(names), arrays, splits, classes, kinds, variables, places)


class Play:
    """The moments of several datasets, numbered through."""

    def __init__(self, parts: list[Frames], view: View) -> None:
        """Raises Mistake where pictures would differ in size."""
        self.parts, self.view = parts, view
        self.lengths = [len(part) for part in parts]
        self.starts = np.cumsum([0, *self.lengths])
        screens = {(part.protocol["screen"][0], part.protocol["screen"][1]) for part in parts}
        if len(screens) > 1:
            raise Mistake(
                "the recorded games have screens of several sizes: learn from games of one size,"
                " such as 210 x 160"
            )
        self.screen = screens.pop()
        numbers = [np.unique(part.moments["episode"], return_inverse=True)[1] for part in parts]
        counts = np.cumsum([0, *(own.max() + 1 for own in numbers)])
        self.episode = np.concatenate([o + n for o, n in zip(numbers, counts, strict=False)])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a picture."""
        return (self.view.size, self.view.size) if self.view.size else self.screen

    def gathered(self, name: str) -> Array:
        """Return a field of all moments [n, ...]."""
        return np.concatenate([part.moments[name] for part in self.parts])

    def splits(self, validation: float, test: float, seed: int) -> dict[str, Array]:
        each = [split(part.moments["episode"], validation, test, seed) for part in self.parts]
        return {
            name: np.concatenate([s[name] + a for s, a in zip(each, self.starts, strict=False)])
            for name in each[0]
        }

    def by_part(self, index: Array) -> Iterable[tuple[Array, Frames, Array]]:
        """Yield, for each dataset that moments [B] are of, where they stand in `index`, the dataset
        and their numbers there."""
        which = np.searchsorted(self.starts, index, side="right") - 1
        for number in np.unique(which):
            here = np.flatnonzero(which == number)
            yield here, self.parts[number], index[here] - self.starts[number]


class Pictures:
    """[n, C, H, W] uint8."""

    def __init__(self, play: Play) -> None:
        self.play = play
        channels = play.view.num_stacked * (1 if play.view.grey else 3)
        self.shape = (len(play.episode), channels, *play.size)

    def __getitem__(self, index: Array) -> Array:
        index, depth = np.asarray(index, np.int64), self.play.view.num_stacked
        rows = index[:, None] - np.arange(depth)[::-1]  # [B, depth] moments, oldest first
        begun = (rows >= 0) & (self.play.episode[rows] == self.play.episode[index][:, None])
        shown = self.single(np.where(begun, rows, 0).ravel())
        shown[~begun.ravel()] = 0
        return shown.reshape(len(index), *self.shape[1:])

    def single(self, index: Array) -> Array:
        """Return moments one by one, [B, 1 or 3, H, W], in memory of their own."""
        return self.small[index] if self.play.view.size else self.own_size(index)

    @cached_property
    def small(self) -> Array:
        """All moments, [n, 1 or 3, H, W]: in the size of a view they fit into memory."""
        everything = np.arange(len(self.play.episode))
        parts = np.array_split(everything, len(everything) // 500 + 1)
        return np.concatenate([resized(self.own_size(i), self.play.view.size) for i in parts])

    def own_size(self, index: Array) -> Array:
        channels = 1 if self.play.view.grey else 3
        shown = np.empty((len(index), channels, *self.play.screen), np.uint8)
        for here, part, numbers in self.play.by_part(index):
            pictures = part.pictures(numbers)
            shown[here] = grey(pictures) if self.play.view.grey else pictures
        return shown


class Labels:
    """What the game tells of places on the screen, in pixels of the view; kept once it was asked
    for."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.kinds = play.parts[0].labels.KINDS
        self.masks = np.zeros((len(play.episode), *play.size), np.uint8)  # [n, H, W]
        self.boxes: dict[int, Array] = {}  # [K, 5] float32: left, top, right, bottom, kind

    def find(self, index: Array) -> None:
        """Make sure of these moments."""
        new = np.array([number for number in index if int(number) not in self.boxes], np.int64)
        for here, part, numbers in self.play.by_part(new):
            screens, rams = part.screens(numbers), part.moments["ram"][numbers]
            for number, screen, ram in zip(new[here], screens, rams, strict=True):
                objects = part.labels.objects(ram, screen)
                painted = class_map(objects, self.kinds, screen.shape)
                self.masks[number] = shrunk(painted, self.play.size)
                rows = [(*thing.box, self.kinds.index(thing.kind) + 1) for thing in objects]
                boxes = np.array(rows, np.float32).reshape(-1, 5)
                tall, wide = np.divide(self.play.size, screen.shape)
                self.boxes[int(number)] = boxes * np.array([wide, tall, wide, tall, 1], np.float32)


class Masks:
    """The kind of every pixel, [n, H, W] uint8, 0 for the background."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.shape = labels.masks.shape

    def __getitem__(self, index: Array) -> Array:
        self.labels.find(index)
        return self.labels.masks[index]


class Boxes:
    """The edges of every object, left, top, right, bottom, pixels: [n, K, 4] float32; what is less
    than K, the most in a batch, is 0."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.shape = (len(labels.masks), -1, 4)

    def __getitem__(self, index: Array) -> Array:
        return self.padded(index)[..., :4]

    def padded(self, index: Array) -> Array:
        self.labels.find(index)
        rows = [self.labels.boxes[int(number)] for number in index]
        padded = np.zeros((len(rows), max(map(len, rows), default=0), 5), np.float32)
        for row, boxes in zip(padded, rows, strict=True):
            row[: len(boxes)] = boxes
        return padded


class Kinds(Boxes):
    """The kind of every object, [n, K] int64; 0 where there is none."""

    def __getitem__(self, index: Array) -> Array:
        return self.padded(index)[..., 4].astype(np.int64)


def shrunk(mask: Array, size: tuple[int, int]) -> Array:
    """Return the kinds of pixels [H, W] in a picture of another size. Where several pixels become
    one, the kind of the last object among them counts, and background only where it is alone."""
    if mask.shape == size:
        return mask
    rows, columns = np.nonzero(mask)
    small = np.zeros(size, mask.dtype)
    tall, wide = np.divide(size, mask.shape)
    small[(rows * tall).astype(int), (columns * wide).astype(int)] = mask[rows, columns]
    return small
