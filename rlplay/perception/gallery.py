"""Pictures of pictures: examples side by side, each with a caption, for TensorBoard and the run
folder. Knows numbers of pixels only."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rlplay.core import Array
from rlplay.palette import NIGHT, SLATE, SNOW, Ink

CELL, GAP, CAPTION = 72, 6, 16  # pixels: the least side of a picture, between two, below one
TYPE = 11  # size of the captions
HUES = (210, 45, 130, 330, 20, 180, 280, 90)  # degrees on the circle of colours, far apart in turn
NEGATIVE, POSITIVE = (33, 102, 172), (178, 24, 43)  # of a diverging scale
COVER = 0.75  # how far a map hides the picture below it, at most


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
    factor = enlargement(picture)
    return coloured(picture).transpose(1, 2, 0).repeat(factor, axis=0).repeat(factor, axis=1)


def coloured(picture: Array) -> Array:
    """Return a picture [C, H, W] with three colours, [3, H, W]; of others than three, the last."""
    return picture if len(picture) == 3 else np.repeat(picture[-1:], 3, axis=0)


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


def table(
    rows: Sequence[Sequence[Array | None]],
    heads: Sequence[str] = (),
    sides: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    cell: int = CELL,
) -> Array:
    """Return colours [h, w, 3] uint8 of any sizes in rows, enlarged by whole factors to at most
    `cell` pixels, or reduced to them, below the heads of their columns, beside what their row is
    and above their captions, as one [H', W', 3] uint8; None leaves a place free."""
    cells = [[None if one is None else fitted(one, cell) for one in row] for row in rows]
    font, num_columns = ImageFont.load_default(TYPE), max(map(len, rows))
    widths = [
        max(
            [one.shape[1] for row in cells if len(row) > i and (one := row[i]) is not None]
            + [math.ceil(font.getlength(row[i])) + 4 for row in captions if len(row) > i]
            + [math.ceil(font.getlength(head)) + 4 for head in heads[i : i + 1]]
        )
        for i in range(num_columns)
    ]
    heights = [max([one.shape[0] for one in row if one is not None] + [TYPE]) for row in cells]
    left = 2 * GAP + math.ceil(max([font.getlength(side) for side in sides] + [0]))
    top = GAP + CAPTION * bool(heads)
    room = CAPTION * bool(captions)
    size = (left + sum(widths) + GAP * num_columns, top + sum(heights) + (room + GAP) * len(cells))
    sheet = Image.new("RGB", size, NIGHT)
    draw, y = ImageDraw.Draw(sheet), top
    for r, (row, height) in enumerate(zip(cells, heights, strict=True)):
        x = left
        if sides:
            draw.text((GAP, y + height // 2), sides[r], fill=SNOW, font=font, anchor="lm")
        for i, width in enumerate(widths):
            centre = x + width // 2
            if r == 0 and heads:
                draw.text((centre, top - CAPTION // 2), heads[i], SLATE, font, "mm")
            if i < len(row) and (one := row[i]) is not None:
                place = (centre - one.shape[1] // 2, y + (height - one.shape[0]) // 2)
                sheet.paste(Image.fromarray(one), place)
            if captions and i < len(captions[r]):
                draw.text((centre, y + height + CAPTION // 2), captions[r][i], SLATE, font, "mm")
            x += width + GAP
        y += height + room + GAP
    return np.asarray(sheet)


def fitted(colours: Array, cell: int) -> Array:
    """Return a picture [h, w, 3] enlarged by a whole factor to at most `cell` pixels a side, or
    reduced to them."""
    longest = max(colours.shape[:2])
    if longest > cell:
        size = [max(1, round(side * cell / longest)) for side in colours.shape[1::-1]]
        return np.asarray(Image.fromarray(colours).resize((size[0], size[1])))
    factor = cell // longest
    return colours.repeat(factor, 0).repeat(factor, 1)


def shown(picture: Array, num_moments: int = 1) -> Array:
    """Return a picture [C, H, W] uint8 as colours [H, W, 3]. Of several grey moments red is the
    newest, blue the oldest and green what lies between: what stands still is grey. They are
    lightened, for what moves is often small and dim. Of several coloured ones the newest is shown.
    """
    if len(picture) == 3 * num_moments:
        return np.ascontiguousarray(picture[-3:].transpose(1, 2, 0))
    if len(picture) == 1 or num_moments == 1:
        return picture[-1][..., None].repeat(3, 2)
    light = 255 * (picture / max(int(picture.max()), 1)) ** 0.6
    between = light[1:-1] if len(picture) > 2 else light
    return np.round(np.stack([light[-1], between.mean(0), light[0]], 2)).astype(np.uint8)


def diverging(values: Array) -> Array:
    """Return values [..., H, W] in -1..1 as colours [..., H, W, 3] uint8: white for 0, blue below,
    red above."""
    share = np.clip(values, -1, 1)[..., None]
    ink = np.where(share > 0, np.array(POSITIVE), np.array(NEGATIVE))
    return np.round(255 + np.abs(share) * (ink - 255)).astype(np.uint8)


def tinted(colours: Array, layers: Sequence[tuple[Array, Ink]]) -> Array:
    """Return a picture [H, W, 3] uint8 in grey with maps [h, w] in 0..1 on it, each in its ink;
    where several meet, their inks mix."""
    height, width, _ = colours.shape
    grey = colours.astype(np.float32).mean(2, keepdims=True)
    parts = np.stack(
        [
            np.asarray(
                Image.fromarray(np.clip(values, 0, 1).astype(np.float32)).resize(
                    (width, height), Image.Resampling.BILINEAR
                )
            )
            for values, _ in layers
        ]
    )  # [L, H, W]
    inks = np.array([ink for _, ink in layers], np.float32)
    mixed = np.einsum("lhw,lc->hwc", parts, inks) / (parts.sum(0)[..., None] + 1e-9)
    cover = COVER * parts.max(0)[..., None]
    return np.round((1 - cover) * (25 + 0.75 * grey) + cover * mixed).astype(np.uint8)
