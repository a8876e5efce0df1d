"""Freeway: what its RAM and its screen say. Addresses: Anand et al. 2019 (AtariARI), checked here.

Ten cars, one to a lane and each of a colour of its own with black wheels; RAM counts their places
from the right. They are exact to the pixel. So is the chicken, but for the four pixels of each
dash of the yellow middle line that it stands on, which count as the chicken's.
"""

from __future__ import annotations

from rlplay.core import Array
from rlplay.perception.objects import Object, coloured

VARIABLES = {
    "player_y": 14,
    "score": 103,
    **{f"car_{lane}_x": 108 + lane for lane in range(10)},
}
KINDS = ("player", "car", "score", "rival")

YELLOW, PINK, BLACK = 30, 74, 0
COLOURS = (66, 220, 18, 74, 130, 36, 136, 68, 216, 26)
"""Of the cars, from the top lane."""
FIRST_LANE, LANE_HEIGHT, ROAD_LEFT, SCREEN_WIDTH, WIDTH = 27, 16, 8, 160, 10
CHICKEN_TOP, CHICKEN_HEIGHT = 193, 8


def objects(ram: Array, screen: Array) -> list[Object]:
    top = CHICKEN_TOP - int(ram[14])
    found = coloured("player", screen, YELLOW, 43, top, 52, top + CHICKEN_HEIGHT)
    found += coloured("rival", screen, YELLOW, 107, 185, 117, 195)
    for lane, colour in enumerate(COLOURS):
        left, top = 157 - int(ram[108 + lane]), FIRST_LANE + LANE_HEIGHT * lane
        left += SCREEN_WIDTH if left < 1 else 0  # at the left edge it shows at the right one
        edges = (max(left - 1, ROAD_LEFT), top, max(left + WIDTH, ROAD_LEFT), top + WIDTH)
        found += coloured("car", screen, (colour, BLACK), *edges)
    found += coloured("score", screen, PINK, 8, 4, 80, 14)
    return found + coloured("score", screen, PINK, 80, 4, 160, 14)
