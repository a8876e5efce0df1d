"""Pictures of pictures: examples side by side, each with a caption, for TensorBoard and the run
folder. Knows numbers of pixels only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rlplay.core import Array
from rlplay.palette import NIGHT, SNOW, Ink

CELL, GAP, CAPTION = 72, 6, 16  # pixels: the least side of a picture, between two, below one
TYPE = 11  # size of the captions


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
    factor = max(1, -(-CELL // max(picture.shape[1:])))
    return colours.transpose(1, 2, 0).repeat(factor, axis=0).repeat(factor, axis=1)
