"""Files become pictures, and pictures smaller or grey."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlplay.core import Array, Mistake


def read(file: Path, size: int) -> Array:
    """Return a picture [3, size, size] uint8. Raises Mistake where the file holds none."""
    from PIL import Image

    try:
        with Image.open(file) as opened:
            scaled = opened.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            return np.ascontiguousarray(np.asarray(scaled).transpose(2, 0, 1))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise unreadable(file) from error


def unreadable(file: Path) -> Mistake:
    return Mistake(f"{file} cannot be read as a picture: remove it, or mend it")


def grey(pictures: Array) -> Array:
    """Return the brightness [n, 1, H, W] of pictures [n, C, H, W], as ITU-R 601 weighs colours."""
    if pictures.shape[1] == 1:
        return pictures
    weight = np.array([0.299, 0.587, 0.114], np.float32)
    bright = [np.tensordot(weight, picture, 1) for picture in pictures]  # one by one: less memory
    return np.round(np.stack(bright)).astype(np.uint8)[:, None]


def resized(pictures: Array, size: int) -> Array:
    """Return pictures [n, C, H, W] as [n, C, size, size]."""
    from PIL import Image

    scaled = [
        np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR))
        for plane in pictures.reshape(-1, *pictures.shape[2:])
    ]
    return np.stack(scaled).reshape(*pictures.shape[:2], size, size)
