"""Boxing: what its RAM and its screen say. Addresses: Anand et al. 2019 (AtariARI), checked here.

A white and a black boxer on a green floor: their masks are exact to the pixel, gloves, head and
all, and one hides part of the other.
"""

from __future__ import annotations

from rlplay.core import Array
from rlplay.perception.objects import Object, coloured

VARIABLES = {
    "player_x": 32,
    "player_y": 34,
    "enemy_x": 33,
    "enemy_y": 35,
    "player_score": 18,
    "enemy_score": 19,
    "clock": 17,
}
KINDS = ("player", "enemy", "score", "clock")

WHITE, BLACK, DARK_GREEN = 12, 0, 208
RING = (32, 36, 128, 177)  # left, top, right, bottom


def objects(ram: Array, screen: Array) -> list[Object]:
    return [
        *coloured("player", screen, WHITE, *RING),
        *coloured("enemy", screen, BLACK, *RING),
        *coloured("score", screen, WHITE, 8, 4, 80, 14),
        *coloured("score", screen, BLACK, 80, 4, 160, 14),
        *coloured("clock", screen, DARK_GREEN, 40, 15, 120, 26),
    ]
