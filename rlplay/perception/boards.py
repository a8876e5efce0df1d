"""Boards as pictures, to be read back square by square: positions of random play, each drawn in a
style of its own.

The board's place and size, colours, stones, lines, light and noise are drawn at random. One thing
holds in every style: the stones of the first player are darker than those of the second. The test
is of other styles than the training: no shape of stones, no pattern of the board and no hue of
either that occurs in one occurs in the other. Only the training has blotches over its patterns, and
patterns that are stronger. Stones stand out from the board by enough that a person can read them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlplay.core import Array, Mistake
from rlplay.game import BoardGame
from rlplay.perception.source import SPLITS, Source

KINDS = ("empty", "first", "second")


@dataclass(frozen=True)
class Family:
    """What styles are drawn from."""

    shapes: tuple[str, ...]
    """Of the stones."""
    patterns: tuple[str, ...]
    """Of the board."""
    hues: tuple[tuple[float, float], ...]
    """From where to where on the circle of hues, degrees, of all that has a colour."""
    strength: float
    """At most, of a pattern, in what the stones stand out by."""
    blotches: float
    """Share of the boards that have light and dark blotches over their pattern."""


LEARNED = Family(
    ("disc", "square", "diamond", "ring", "cross", "triangle", "button"),
    ("plain", "checkered", "holes", "woven", "dotted", "graded", "scratched"),
    ((-100, 10), (70, 190)),
    strength=0.9,
    blotches=0.6,
)
TESTED = Family(
    ("hexagon", "star", "target"),
    ("striped", "marbled"),
    ((20, 60), (200, 250)),
    strength=0.6,
    blotches=0,
)
DARK, LIGHT, BETWEEN = (15, 75), (180, 245), (110, 145)
"""Brightness of the first player's stones, of the second's, and of holes in a board, 0..255."""
APART = 90  # least distance between two colours that touch, as in RGB
LIGHTER = 40  # and between their brightnesses, of a stone and what it lies on


def source(game: BoardGame, num: int, size: int, shares: tuple[float, float], seed: int) -> Source:
    """Return boards of a game as pictures [num, 3, size, size], with their squares and their boxes.
    `shares` are of the validation and of the test; only the test has its styles. Raises Mistake
    where none would be left to learn from."""
    random = np.random.default_rng([*b"boards", seed])
    states = positions(game, num, random)
    squares = np.stack([game.cells(state) + 1 for state in states]).astype(np.int64)
    num_validation, num_test = (max(round(share * num), 1) for share in shares)
    ends = [num - num_test - num_validation, num - num_test]
    if ends[0] < 1:
        raise Mistake(
            f"of {num} boards none would be left to learn from: set data.num_boards to more, or"
            " data.validation and data.test to less"
        )
    splits: dict[str, Array] = dict(zip(SPLITS, np.split(np.arange(num), ends), strict=True))
    pictures = np.empty((num, 3, size, size), np.uint8)
    boxes = np.empty((num, 1, 4), np.float32)
    for name, index in splits.items():
        family = TESTED if name == "test" else LEARNED
        for number in index:
            own = np.random.default_rng([*b"style", seed, number])
            pictures[number], boxes[number] = painted(squares[number], size, family, own)
    arrays = {"picture": pictures, "squares": squares, "boxes": boxes}
    return Source(f"{game.name}-boards", arrays, splits, kinds=KINDS)


def positions(game: BoardGame, num: int, random: np.random.Generator) -> Array:
    """Return a position of each of `num` games played at random, any of the game's positions as
    likely as another."""
    state = game.start(num)
    chosen, going = state.copy(), np.arange(num)
    for moves in range(2, game.max_moves + 2):
        mask = game.action_mask(state[going])
        action = (random.random(mask.shape) * mask).argmax(1)
        state[going] = game.play(state[going], action)
        taken = going[random.random(len(going)) < 1 / moves]
        chosen[taken] = state[taken]
        going = going[~game.over(state[going])]
        if not len(going):
            break
    return chosen


def painted(
    squares: Array, size: int, family: Family, random: np.random.Generator
) -> tuple[Array, tuple[float, ...]]:
    """Return a board [R, C] as a picture [3, size, size] uint8 in a style of a family, and its
    edges there: left, top, right, bottom, pixels."""
    rows, columns = squares.shape
    left, top, wide, high = placed(rows, columns, size, random)
    down, across = np.mgrid[0:size, 0:size].astype(np.float32) + 0.5  # [H, W] pixels
    x, y = (across - left) / wide, (down - top) / high  # in squares, from the board's corner
    column = np.clip(np.floor(x), 0, columns - 1).astype(int)
    row = np.clip(np.floor(y), 0, rows - 1).astype(int)
    unit = min(wide, high)  # pixels

    pattern, shape = random.choice(family.patterns), random.choice(family.shapes)
    stones = [colours(family, bright, 1, random)[0] for bright in (DARK, LIGHT)]
    board = distinct(family, (60, 210), stones, random, LIGHTER)
    ground = distinct(family, (20, 235), [board], random)
    outside = np.maximum(np.abs(x - columns / 2) - columns / 2, np.abs(y - rows / 2) - rows / 2)
    frame = random.uniform(0, 0.4) * random.integers(2)  # around the squares, in squares
    picture = np.empty((3, size, size), np.float32)
    picture[:] = ground[:, None, None]
    blend(picture, board * random.uniform(0.6, 1.2), cover((outside - frame) * unit))
    contrast = min(abs((board - stone) @ WEIGHT) for stone in stones) / (board @ WEIGHT)
    strength = random.uniform(0.2, family.strength) * min(contrast, 0.4)
    light = patterned(pattern, x, y, row + column, random)
    if random.random() < family.blotches:
        light = np.clip(light + random.uniform(1, 4) * noise(x, y, random), -1, 1)
    light = 1 + strength * light
    blend(picture, board[:, None, None] * light, cover(outside * unit))
    if random.random() < 0.5 and pattern != "holes":
        line = random.uniform(0.5, 1.5)  # pixels, half the width
        nearest = np.minimum(np.abs(x - np.round(x)) * wide, np.abs(y - np.round(y)) * high)
        inside = cover((outside - 0.02) * unit)
        blend(picture, board * random.uniform(0.3, 0.7), cover(nearest - line / 2) * inside)

    shift = random.uniform(-0.06, 0.06, (2, rows, columns)).astype(np.float32)  # of each stone
    u, v = x - column - 0.5 - shift[0, row, column], y - row - 0.5 - shift[1, row, column]
    radius = random.uniform(0.32, 0.44)
    if pattern == "holes":
        hole = distinct(family, BETWEEN, [*stones, board], random)
        deep = np.hypot(x - column - 0.5, y - row - 0.5) - random.uniform(0.36, 0.44)
        blend(picture, hole, cover(deep * unit) * cover(outside * unit))
    distance = outline(shape, u, v, radius) * unit
    rim = random.uniform(0.7, 1.5) * random.integers(2)  # pixels
    bulge = random.uniform(0, 0.35) * random.integers(2)  # how much of a marble a stone is
    shade = 1 + bulge * (0.5 - np.hypot(u + 0.15, v + 0.15) / radius)
    there = squares[row, column]
    inside = cover(outside * unit - 1)
    for number, ink in enumerate(stones, start=1):
        here = (there == number) * inside
        blend(picture, ink * random.uniform(0.3, 0.6), cover(distance - rim) * here)
        blend(picture, ink[:, None, None] * shade, cover(distance) * here)
    edges = (left, top, left + columns * wide, top + rows * high)
    return finished(picture, across / size, down / size, random), edges


def placed(
    rows: int, columns: int, size: int, random: np.random.Generator
) -> tuple[float, float, float, float]:
    """Return where a board lies in a picture: its left and top, and the width and height of a
    square, pixels. It covers 72% to 96% of the picture, in the longer direction."""
    stretch = random.uniform(0.92, 1.08)  # of a square, width against height
    share = random.uniform(0.72, 0.96)
    unit = share * size / max(columns * stretch, rows / stretch)
    wide, high = unit * stretch, unit / stretch
    left = random.uniform(0.02, 0.98 - columns * wide / size) * size
    room = size - rows * high
    top = room / 2 + random.uniform(-0.5, 0.5) * min(room - 0.04 * size, 0.24 * size)
    return left, top, wide, high


def colours(
    family: Family, bright: tuple[int, int], num: int, random: np.random.Generator
) -> Array:
    """Return colours [num, 3], 0..255, of a family's hues and of a brightness."""
    start, stop = np.array(family.hues)[random.integers(len(family.hues), size=num)].T
    hue, light = random.uniform(start, stop)[:, None], random.uniform(*bright, (num, 1))
    pure = np.clip(np.abs((hue / 60 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    mixed = 1 - random.uniform(0.2, 1, (num, 1)) * (1 - pure)  # towards white
    mixed *= light / (mixed @ WEIGHT)[:, None]
    most = mixed.max(1, keepdims=True)
    beyond = np.maximum(most - 255, 0)
    return mixed + beyond / np.maximum(most - light, 1) * (light - mixed)  # no brighter than white


WEIGHT = np.array([0.299, 0.587, 0.114])  # of red, green and blue in brightness, ITU-R 601


def distinct(
    family: Family,
    bright: tuple[int, int],
    others: list[Array],
    random: np.random.Generator,
    lighter: float = 0,
) -> Array:
    """Return a colour that others differ from, also by how much lighter or darker they are, or of
    fifty the one that does most."""
    drawn = colours(family, bright, 50, random)
    away = drawn[:, None] - np.stack(others)  # [50, N, 3]
    apart = (np.linalg.norm(away, axis=2) / APART).min(1)
    if lighter:
        apart = np.minimum(apart, (np.abs(away @ WEIGHT) / lighter).min(1))
    return drawn[np.argmax(np.minimum(apart, 1))]


def patterned(
    pattern: str, x: Array, y: Array, parity: Array, random: np.random.Generator
) -> Array:
    """Return how much lighter a board's surface is at places x, y [H, W] in squares, about -1 to
    1."""
    phase = random.uniform(0, 2 * np.pi, 4)
    if pattern == "checkered":
        return parity % 2 * 2.0 - 1
    if pattern == "woven":
        across, down = random.uniform(3, 12, 2)
        return np.sin(across * x + phase[0]) * np.sin(down * y + phase[1])
    if pattern == "dotted":
        fine = random.uniform(1.5, 3)  # dots a square
        away = np.hypot((fine * x) % 1 - 0.5, (fine * y) % 1 - 0.5)
        return np.where(away < random.uniform(0.2, 0.35), phase[0] - np.pi > 0, 0.5) * 2.0 - 1
    if pattern == "graded":
        return 0.3 * ((x - 3) * np.cos(phase[0]) + (y - 3) * np.sin(phase[0]))
    if pattern == "scratched":
        turn, where = random.uniform(0, np.pi, 12), random.uniform(-3, 9, (2, 12))
        away = [
            np.abs((x - a) * np.cos(t) + (y - b) * np.sin(t))
            for t, a, b in zip(turn, *where, strict=True)
        ]
        return np.where(np.min(away, 0) < 0.06, np.sign(phase[0] - np.pi), 0.0)
    if pattern == "striped":
        across = random.uniform(-0.3, 0.3) * x + y
        return np.sin(random.uniform(4, 12) * across + phase[0])
    if pattern == "marbled":
        bend = np.sin(1.7 * x + phase[0]) + np.sin(1.3 * y + phase[1])
        return np.sin(2 * bend + 2.1 * (x - y) + phase[2])
    return np.zeros_like(x)


def noise(x: Array, y: Array, random: np.random.Generator) -> Array:
    """Return numbers between -1 and 1 that vary smoothly over places x, y [H, W]: drawn on a
    lattice, which is turned, and in each direction of a width of its own."""
    lattice = random.uniform(-1, 1, (64, 64)).astype(np.float32)
    turn, fine = random.uniform(0, np.pi), np.exp(random.uniform(-1, 1.2, 2))
    across = (x * np.cos(turn) + y * np.sin(turn)) * fine[0]
    down = (y * np.cos(turn) - x * np.sin(turn)) * fine[1]
    column, row = np.floor(across).astype(int), np.floor(down).astype(int)
    u, v = across - column, down - row
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    left, right, above, below = column % 64, (column + 1) % 64, row % 64, (row + 1) % 64
    upper = lattice[above, left] * (1 - u) + lattice[above, right] * u
    return upper * (1 - v) + (lattice[below, left] * (1 - u) + lattice[below, right] * u) * v


def outline(shape: str, u: Array, v: Array, radius: float) -> Array:
    """Return how far places u, v, in squares from a stone's middle, lie outside the stone."""
    away = np.hypot(u, v)
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) - 0.88 * radius
    if shape == "diamond":
        return (np.abs(u) + np.abs(v) - 1.25 * radius) / np.sqrt(2)
    if shape == "ring":
        return np.abs(away - 0.72 * radius) - 0.32 * radius
    if shape == "cross":
        one, other = np.abs(u + v) / np.sqrt(2), np.abs(u - v) / np.sqrt(2)
        return np.maximum(np.minimum(one, other) - 0.36 * radius, np.maximum(one, other) - radius)
    if shape == "triangle":
        return np.maximum(np.abs(u) * 0.866 + v * 0.5, -v) - 0.55 * radius
    if shape == "button":
        holes = np.hypot(np.abs(u) - 0.4 * radius, np.abs(v) - 0.4 * radius)
        return np.maximum(away - radius, 0.25 * radius - holes)
    if shape == "hexagon":
        return np.maximum(np.abs(v), np.abs(u) * 0.866 + np.abs(v) * 0.5) - 0.92 * radius
    if shape == "star":
        angle = np.arctan2(v, u)
        return away - radius * (0.82 + 0.2 * np.cos(5 * angle))
    if shape == "target":
        return np.minimum(away - 0.4 * radius, np.abs(away - 0.82 * radius) - 0.2 * radius)
    return away - radius


def cover(distance: Array) -> Array:
    """Return the share [H, W] of each pixel that lies inside, given how far out its middle is."""
    return np.clip(0.5 - distance, 0, 1)


def blend(picture: Array, ink: Array, share: Array) -> None:
    """Paint an ink, [3] or [3, H, W], over a share [H, W] of each pixel."""
    ink = ink[:, None, None] if ink.ndim == 1 else ink
    picture += share * (ink.astype(np.float32) - picture)


def finished(picture: Array, x: Array, y: Array, random: np.random.Generator) -> Array:
    """Return a picture [3, H, W] in its light and with its noise, as uint8."""
    angle, fall = random.uniform(0, 2 * np.pi), random.uniform(0, 0.3)
    light = 1 - fall * ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle))
    noise = random.uniform(0, 8) * random.standard_normal(picture.shape, np.float32)
    seen = np.clip(picture * light + noise, 0, 255)
    return np.round(seen).astype(np.uint8)
