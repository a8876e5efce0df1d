"""Tennis: what its RAM and its screen say. Addresses: Anand et al. 2019 (AtariARI), whose "player"
is the one on the upper side, and our own (heights of ball and shadow), checked here.

The two change sides after odd games and take their colours along: orange is the agent, blue the
opponent. The outer lines of each half have the colour of whoever plays there; they are left out of
the masks, so that of a player on a line a few pixels are missing. All else is exact.
"""

from __future__ import annotations

import numpy as np

from rlplay.core import Array
from rlplay.perception.objects import Object, coloured, covered, window

VARIABLES = {
    "upper_x": 26,
    "upper_y": 24,
    "lower_x": 27,
    "lower_y": 25,
    "ball_x": 16,
    "ball_height": 54,
    "shadow_height": 55,
    "player_score": 69,
    "enemy_score": 70,
}
KINDS = ("player", "enemy", "ball", "shadow", "score")

ORANGE, BLUE, WHITE, DARK_GREEN = 76, 140, 14, 2
COURT = (8, 14, 160, 190)  # left, top, right, bottom
BODY_HEIGHT, REACH, WIDTH = 23, 2, 20


def lines() -> Array:
    """Return where the outer lines run, [210, 160] bool."""
    drawn = np.zeros((210, 160), bool)
    for top, bottom, first, left in ((48, 99, 53, 40), (111, 178, 118, 32)):
        for y in range(top, bottom):
            x = left - (y - first + 8) // 8
            drawn[y, [x, 159 - x]] = True
    return drawn


LINES = lines()


def objects(ram: Array, screen: Array) -> list[Object]:
    found = coloured("ball", screen, WHITE, *COURT)
    found += coloured("shadow", screen, DARK_GREEN, *COURT)
    for x, top in ((26, 166 - int(ram[24])), (27, 167 - int(ram[25]))):
        left = int(ram[x]) - 6
        edges = (left, top - REACH, left + WIDTH, top + BODY_HEIGHT + REACH)
        part, corner, above = window(screen, *edges)
        line, _, _ = window(LINES, *edges)
        for kind, colour in (("player", ORANGE), ("enemy", BLUE)):
            pixels = (part == colour) & ~line
            if pixels.sum() > BODY_HEIGHT:
                found += covered(kind, pixels, corner, above)
    found += coloured("score", screen, ORANGE, 8, 4, 80, 13)
    return found + coloured("score", screen, BLUE, 80, 4, 160, 13)
