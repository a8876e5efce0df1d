"""Skiing: what its RAM and its screen say. Addresses: Anand et al. 2019 (AtariARI), checked here.

Skier, flags, trees and moguls stand out from the snow by their colours. Trees have one of four
greens; masks are exact, but two trees of one green that touch are listed as one.
"""

from __future__ import annotations

from rlplay.core import Array
from rlplay.perception.objects import Object, coloured, has_colour, pieces

VARIABLES = {
    "player_x": 25,
    "minutes": 104,
    "seconds": 105,
    "hundredths": 106,
    "gates_left": 107,
    **{f"object_{i}_y": 87 + i for i in range(7)},
}
KINDS = ("player", "flag", "tree", "mogul")

RED, FLAGS, TREES, MOGULS = 72, (134, 68), (198, 212, 214, 218), (10, 12)
SLOPE = (8, 32, 160, 185)  # left, top, right, bottom


def objects(ram: Array, screen: Array) -> list[Object]:
    left, top, right, bottom = SLOPE
    slope = screen[top:bottom, left:right]
    found = coloured("player", screen, RED, *SLOPE)
    found += pieces("flag", has_colour(slope, FLAGS), left, top)
    for colour in TREES:
        found += pieces("tree", slope == colour, left, top, gap=1)
    for colour in MOGULS:
        found += pieces("mogul", slope == colour, left, top, gap=1)
    return found
