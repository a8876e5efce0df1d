"""Pictures of pictures: examples side by side, each with a caption, for TensorBoard and the run
folder. Knows numbers of pixels only."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rlplay.core import Array
from rlplay.palette import NIGHT, SLATE, SNOW, Ink

CELL, GAP, CAPTION = 72, 6, 16  # pixels: the least side of a picture, between two, below one
TYPE = 11  # size of the captions
HUES = (210, 45, 130, 330, 20, 180, 280, 90)  # degrees on the circle of colours, far apart in turn


def grid(
    pictures: Array,
    captions: Sequence[str] = (),
    inks: Sequence[Ink] = (),
    columns: int = 8,
) -> Array:
    """Return pictures [n, C, H, W] uint8, C 1 or 3 (of more, the last one), in rows of `columns`,
    each above its caption in its ink, as one [H', W', 3] uint8."""
    cells = [enlarged(picture) for picture in pictures]
    height, width, _ = cells[0].shape
    height += CAPTION * bool(captions)
    rows = -(-len(cells) // columns)
    size = (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP)
    sheet = Image.new("RGB", size, NIGHT)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TYPE)
    for i, cell in enumerate(cells):
        left = GAP + i % columns * (width + GAP)
        top = GAP + i // columns * (height + GAP)
        sheet.paste(Image.fromarray(cell), (left, top))
        if captions:
            ink = inks[i] if inks else SNOW
            place = (left + width // 2, top + height - CAPTION // 2)
            draw.text(place, captions[i], fill=ink, font=font, anchor="mm")
    return np.asarray(sheet)


def enlarged(picture: Array) -> Array:
    """Return a picture [C, H, W] as colours [k * H, k * W, 3], k the least that fills a cell."""
    colours = picture if len(picture) == 3 else np.repeat(picture[-1:], 3, axis=0)
    factor = enlargement(picture)
    return colours.transpose(1, 2, 0).repeat(factor, axis=0).repeat(factor, axis=1)


def enlargement(picture: Array) -> int:
    """Return how many times as large a picture [C, H, W] is shown."""
    return max(1, -(-CELL // max(picture.shape[1:])))


def legend(entries: Sequence[tuple[str, Ink | None]], width: int) -> Array:
    """Return names, each beside its colour if it has one, in as many rows as `width` pixels ask
    for, as one [H', width, 3] uint8."""
    font = ImageFont.load_default(TYPE)
    places, left, row = [], GAP, 0
    for name, ink in entries:
        length = CAPTION * (ink is not None) + round(font.getlength(name)) + 2 * GAP
        if left > GAP and left + length > width:
            left, row = GAP, row + 1
        places.append((left, row))
        left += length
    sheet = Image.new("RGB", (width, GAP + (row + 1) * (CAPTION + 2)), NIGHT)
    draw = ImageDraw.Draw(sheet)
    for (name, ink), (left, row) in zip(entries, places, strict=True):
        top = GAP + row * (CAPTION + 2)
        middle = (left, top + CAPTION // 2)
        if ink is None:
            draw.text(middle, name, fill=SLATE, font=font, anchor="lm")
            continue
        draw.rectangle((left, top + 3, left + TYPE - 1, top + 2 + TYPE), fill=ink)
        middle = (left + CAPTION, top + CAPTION // 2)
        draw.text(middle, name, fill=SNOW, font=font, anchor="lm")
    return np.asarray(sheet)


def inks(num: int) -> list[Ink]:
    """Return colours that are easy to tell apart, and lighter ones once there are no more hues."""
    found = []
    for i in range(num):
        turn, place = divmod(i, len(HUES))
        light, full = (0.62, 0.8) if turn % 2 == 0 else (0.8, 0.6)
        shares = colorsys.hls_to_rgb((HUES[place] + 12 * turn) % 360 / 360, light, full)
        red, green, blue = (round(255 * share) for share in shares)
        found.append((red, green, blue))
    return found
