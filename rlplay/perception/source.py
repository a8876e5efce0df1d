"""Examples to learn to see from: pictures, what is known of each, and three splits. It knows no
task and no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rlplay.core import Array, Mistake

SPLITS = ("train", "validation", "test")


class Column(Protocol):
    """What is known of each of n examples, as in an array; it may be made when it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[n, ...]"""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """Return what is known of the examples of these numbers [B], as an array [B, ...]."""
        ...


@dataclass(frozen=True)
class Source:
    """n examples, by number."""

    name: str
    arrays: Mapping[str, Column]
    """picture [n, C, H, W] uint8; and what there is of

    label      [n] int64, of each picture a number in `classes`
    mask       [n, H, W] uint8, of each pixel a number in `kinds`, 255 for none
    boxes      [n, K, 4] float32, the objects' edges: left, top, right, bottom, pixels
    kind       [n, K] int64, of each of these a number in `kinds`, 0 for no object
    variables  [n, V] uint8, the game's state
    squares    [n, R, C] int64, of each square of a board a number in `kinds`
    episode    [n] int64, of examples in order of time"""
    splits: dict[str, Array]
    """Of train, validation and test the numbers of its examples, int64."""
    classes: tuple[str, ...] = ()
    """What the numbers of labels mean."""
    kinds: tuple[str, ...] = ()
    """What the numbers of masks, boxes and squares mean; the first is the background."""
    variables: tuple[str, ...] = ()
    """The names of the V variables."""
    places: Mapping[str, float] = field(default_factory=dict)
    """Of the variables that say where something is: how many pixels of the screen one step is."""
    wanted: set[str] = field(default_factory=lambda: {"picture"})
    """What `take` returns: pictures, and what was required."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a picture: channels, height, width."""
        _, channels, height, width = self.arrays["picture"].shape
        return channels, height, width

    def take(self, index: Array) -> dict[str, Array]:
        """Return what is wanted of the examples of these numbers [B], as [B, ...] by name."""
        return {name: self.arrays[name][index] for name in sorted(self.wanted)}

    def require(self, label: str, task: str) -> None:
        """Want this label in what `take` returns. Raises Mistake where there is none."""
        if label not in self.arrays:
            has = ", ".join(name for name in self.arrays if name != "picture") or "no labels"
            raise Mistake(
                f"the task {task} learns from the {label} of every picture, but the data"
                f" {self.name} has {has}; set another data.name, or another task.name"
            )
        self.wanted.add(label)
