"""The colours of everything that is drawn, and how numbers are written there."""

from __future__ import annotations

import math

import numpy as np

Ink = tuple[int, int, int]
NIGHT, LINE, SLATE, SNOW = (15, 17, 26), (29, 33, 48), (132, 141, 165), (236, 239, 246)
BLUE, AMBER, GREEN, RED = (70, 110, 190), (255, 183, 77), (120, 214, 140), (242, 112, 112)


def number(points: float) -> str:
    """Return points as a scoreboard shows them: 1,250 or 0.95."""
    return f"{round(points, 2) + 0.0:,.2f}".rstrip("0").rstrip(".")


def digits(value: float, largest: float) -> str:
    """Return `value` with as many decimals as numbers up to `largest` have room for."""
    return f"{value:.{int(np.clip(3 - math.log10(abs(largest) + 1e-9), 0, 3))}f}"
