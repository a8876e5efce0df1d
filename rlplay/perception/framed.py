"""Boxes around objects, and their pixels in colour: pictures of what a detector has found."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rlplay.core import Array
from rlplay.nets.detectors import Found
from rlplay.palette import NIGHT, SNOW, Ink

LEAST, GAP, LINE_HEIGHT, TYPE, SMALL_TYPE = 420, 10, 22, 13, 12  # pixels
COLUMNS = 3
GOLDEN = 0.618  # of the circle of hues: neighbouring kinds differ, however many there are
NUM_NAMED, NUM_SCORED = 12, 50  # objects of a kind in a picture: more are told by colour alone
PAINT = 0.65  # how much of a pixel's colour is that of its object


def ink(kind: int) -> Ink:
    """Return the colour of a kind, 1 and more."""
    red, green, blue = colorsys.hsv_to_rgb((0.13 + GOLDEN * kind) % 1, 0.65, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def colours(picture: Array) -> Array:
    """Return a picture [C, H, W] uint8 in colours [H, W, 3]; of several stacked, the last one."""
    last = picture[-3:] if len(picture) % 3 == 0 else np.repeat(picture[-1:], 3, axis=0)
    return last.transpose(1, 2, 0)


def painted(picture: Array, found: Found) -> Array:
    """Return a picture [H, W, 3] with the pixels of what was found in the colours of the kinds."""
    shown = picture * 0.5
    masks = np.zeros((0, *picture.shape[:2]), bool) if found.mask is None else found.mask.cpu()
    for mask, kind in zip(np.asarray(masks), found.kind.tolist(), strict=True):
        shown[mask] = PAINT * np.array(ink(kind)) + (1 - PAINT) * picture[mask]
    return shown.astype(np.uint8)


def sheet(
    pictures: Sequence[Array],
    truth: Sequence[Array],
    found: Sequence[Found],
    kinds: Sequence[str],
) -> Array:
    """Return pictures [H, W, 3], enlarged, above a legend of the kinds (the first is none), as one
    [H', W', 3] uint8. Each has thin white boxes [n, 4] around what there is, and those found, if
    any are given, around these."""
    height, width = pictures[0].shape[:2]
    factor = max(1, round(LEAST / width))
    tall, wide = height * factor, width * factor
    columns = min(COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    total = columns * (wide + GAP) + GAP
    entries = legend(kinds, total)
    lines = 1 + max(row for row, _, _, _ in entries)
    whole = (total, rows * (tall + GAP) + 2 * GAP + lines * LINE_HEIGHT)
    canvas = Image.new("RGB", whole, NIGHT)
    for i, picture in enumerate(pictures):
        cell = Image.fromarray(picture.repeat(factor, axis=0).repeat(factor, axis=1))
        frame(cell, truth[i], found[i] if found else None, kinds, factor)
        place = (GAP + i % columns * (wide + GAP), GAP + i // columns * (tall + GAP))
        canvas.paste(cell, place)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(TYPE)
    for row, left, name, colour in entries:
        top = rows * (tall + GAP) + GAP + row * LINE_HEIGHT
        draw.rectangle((left, top + 4, left + 11, top + 15), outline=colour, width=2)
        draw.text((left + 18, top + 10), name, fill=SNOW, font=font, anchor="lm")
    return np.asarray(canvas)


def legend(kinds: Sequence[str], width: int) -> list[tuple[int, int, str, Ink]]:
    """Return the entries of a legend: row, left edge, name and colour."""
    font, entries, row, left = ImageFont.load_default(TYPE), [], 0, GAP
    names = [("truth (thin)", SNOW)] + [(kinds[i], ink(i)) for i in range(1, len(kinds))]
    for name, colour in names:
        need = 18 + round(font.getlength(name)) + 18
        if left + need > width and left > GAP:
            row, left = row + 1, GAP
        entries.append((row, left, name, colour))
        left += need
    return entries


def frame(
    cell: Image.Image, truth: Array, found: Found | None, kinds: Sequence[str], factor: int
) -> None:
    """Draw boxes into an enlarged picture, and beside each that was found its name and score in
    percent, as much of it as there is room for, what is rare first."""
    draw, font = ImageDraw.Draw(cell), ImageFont.load_default(SMALL_TYPE)
    for box in truth:
        draw.rectangle(edges(box, factor, 1), outline=SNOW)
    if found is None:
        return
    boxes, marked = found.boxes.cpu().numpy(), found.kind.tolist()
    taken = [edges(box, factor, 0) for box in boxes]
    for box, kind in zip(boxes, marked, strict=True):
        draw.rectangle(edges(box, factor, 3), outline=ink(kind), width=2)
    count = Counter(marked)
    rows = zip(boxes, marked, found.score.tolist(), strict=True)
    for box, kind, score in sorted(rows, key=lambda row: count[row[1]]):
        texts = [f"{kinds[kind]} {100 * score:.0f}"] * (count[kind] <= NUM_NAMED)
        texts += [f"{100 * score:.0f}"] * (count[kind] <= NUM_SCORED)
        left, top, right, bottom = edges(box, factor, 3)
        for text in texts:
            long, high = round(font.getlength(text)), SMALL_TYPE
            at = min(max(left, 0), cell.width - long)
            places = [(at, top - high - 3), (at, bottom + 1), (right + 2, top)]
            spaces = [(x, y, x + long, y + high + 1) for x, y in places]
            free = [space for space in spaces if fits(space, taken, cell.size)]
            if free:
                draw.rectangle(free[0], fill=NIGHT)
                draw.text(free[0][:2], text, ink(kind), font)
                taken.append(free[0])
                break


def edges(box: Array, factor: int, outside: int) -> tuple[int, int, int, int]:
    """Return the pixels of a line around a box [4], `outside` pixels away from it."""
    left, top, right, bottom = np.round(box * factor).astype(int).tolist()
    x, y = left - outside, top - outside
    return x, y, max(right - 1 + outside, x), max(bottom - 1 + outside, y)


def fits(
    space: tuple[int, int, int, int],
    taken: Sequence[tuple[int, int, int, int]],
    size: tuple[int, int],
) -> bool:
    """Tell whether a rectangle lies in a picture of this size and meets none of those taken."""
    left, top, right, bottom = space
    inside = left >= 0 and top >= 0 and right <= size[0] and bottom <= size[1]
    return inside and not any(
        left <= other[2] and other[0] <= right and top <= other[3] and other[1] <= bottom
        for other in taken
    )
