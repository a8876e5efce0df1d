"""What a picture of a game shows: objects of a kind, each with its box and its pixels.

The games tell it themselves. The memory of the Atari 2600 (RAM) says what there is and where, and
the screen in palette colours says which pixels it covers; `labels/GAME.py` knows how to read both,
for one game each. A label is what can be seen: an object hidden, blinking or off the screen is not
listed, and of one half covered, only the visible part. Boxes are tight around the visible pixels.
This file knows no game.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from scipy import ndimage

from rlplay.core import Array, Mistake, nearest


class Box(NamedTuple):
    """A rectangle of pixels; right and bottom are the first column and row outside it."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True, eq=False)
class Object:
    """One thing on the screen."""

    kind: str
    box: Box
    mask: Array  # [bottom - top, right - left] bool, true on its visible pixels


class Labels(Protocol):
    """What a file of labels/ knows about its game; and as STEPS, of the variables called ..._x and
    ..._y that do not count in pixels, how many of them one step is."""

    VARIABLES: dict[str, int]
    """Addresses in RAM of what the game's state is made of, by name."""
    KINDS: tuple[str, ...]
    """The kinds of objects; kind k is class k + 1 of `class_map`."""

    def objects(self, ram: Array, screen: Array) -> list[Object]:
        """Return what is visible, given RAM [128] and the screen [H, W] in palette colours."""
        ...


def games() -> list[str]:
    """Return the games that have labels."""
    return sorted(file.stem for file in (Path(__file__).parent / "labels").glob("[!_]*.py"))


def labels(game: str) -> Labels:
    """Return the labels of a game. Raises Mistake where there are none."""
    if game not in games():
        hint = nearest(game, games()) or f"; there are labels for {', '.join(games())}"
        raise Mistake(f"there are no labels for the game {game!r}{hint}")
    return importlib.import_module(f"rlplay.perception.labels.{game}")  # pyright: ignore[reportReturnType] (a module is checked by test_labels.py)


def class_map(things: Sequence[Object], kinds: Sequence[str], shape: tuple[int, int]) -> Array:
    """Return the class of every pixel, [H, W] uint8: 0 for the background, k + 1 for kinds[k]."""
    painted = np.zeros(shape, np.uint8)
    for thing in things:
        left, top, right, bottom = thing.box
        painted[top:bottom, left:right][thing.mask] = kinds.index(thing.kind) + 1
    return painted


def state(ram: Array, variables: dict[str, int]) -> Array:
    """Return the named variables [..., V] uint8 out of RAM [..., 128]."""
    return ram[..., list(variables.values())]


def covered(kind: str, pixels: Array, left: int, top: int) -> list[Object]:
    """Return the one object that covers `pixels` [h, w] bool, whose corner lies at (left, top) of
    the screen, or nothing where none is true."""
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    if len(rows) == 0:
        return []
    first, last = int(rows[0]), int(rows[-1]) + 1
    start, stop = int(columns[0]), int(columns[-1]) + 1
    box = Box(left + start, top + first, left + stop, top + last)
    return [Object(kind, box, pixels[first:last, start:stop].copy())]


def window(screen: Array, left: int, top: int, right: int, bottom: int) -> tuple[Array, int, int]:
    """Return the part of the screen inside a rectangle, and its left and top, both cut to fit."""
    left, top = max(int(left), 0), max(int(top), 0)
    return screen[top : max(int(bottom), 0), left : max(int(right), 0)], left, top


def coloured(kind: str, screen: Array, colours: int | Sequence[int], *edges: int) -> list[Object]:
    """Return the one object that has all pixels of these colours inside the rectangle `edges`
    (left, top, right, bottom), or nothing."""
    part, left, top = window(screen, *edges)
    return covered(kind, has_colour(part, colours), left, top)


def pieces(kind: str, pixels: Array, left: int, top: int, gap: int = 0) -> list[Object]:
    """Return an object for each connected piece of `pixels` [h, w] bool; corners connect, and so do
    parts with at most `gap` empty rows between them."""
    if not pixels.any():
        return []
    joined = pixels.copy()
    for rows in range(1, gap + 1):
        joined[rows:] |= pixels[:-rows]
    numbered = np.where(pixels, ndimage.label(joined, np.ones((3, 3)))[0], 0)  # pyright: ignore
    found: list[Object] = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
        mask = numbered[rows, columns] == number
        box = Box(left + columns.start, top + rows.start, left + columns.stop, top + rows.stop)
        found.append(Object(kind, box, mask))
    return found


def has_colour(part: Array, colours: int | Sequence[int]) -> Array:
    """Return where a part of the screen has one of these palette colours, bool."""
    if isinstance(colours, int):
        return part == colours
    return np.isin(part, colours)
