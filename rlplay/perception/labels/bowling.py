"""Bowling: what its RAM and its screen say. Addresses: Anand et al. 2019 (AtariARI), checked here.

Ball and pins share one colour: a pin stands where one can and all of it is lit; of the rest, what
is as large as a ball is the ball, and what is smaller is a pin in flight. The bowler has colours of
his own. All masks are exact but where ball and pins touch, which are then one ball.
"""

from __future__ import annotations

import dataclasses

from rlplay.core import Array
from rlplay.perception.objects import Object, coloured, covered, pieces

VARIABLES = {
    "ball_x": 30,
    "ball_y": 41,
    "player_x": 29,
    "player_y": 40,
    "frame": 36,
    "score": 33,
    **{f"pin_{pin}": 57 + pin for pin in range(10)},
}
KINDS = ("player", "ball", "pin", "score")

DARK_BLUE, BLUE = 132, 136
BOWLER = (0, 88, 134, 136)  # shoes, skin, trousers, shirt
LANE_TOP, LANE_BOTTOM = 104, 172
PINS = (
    (133, 155),
    (129, 149),
    (133, 143),
    (125, 143),
    (129, 137),
    (121, 137),
    (133, 131),
    (125, 131),
    (129, 125),
    (133, 119),
)
"""Left and top of where pins stand, from the bottom up."""
PIN_WIDTH, PIN_HEIGHT, BALL_HEIGHT = 2, 4, 10


def objects(ram: Array, screen: Array) -> list[Object]:
    lit = screen[:LANE_BOTTOM] == DARK_BLUE
    lit[:LANE_TOP] = False
    found = []
    for x, y in PINS:
        part = lit[y : y + PIN_HEIGHT, x : x + PIN_WIDTH]
        beside = lit[y : y + PIN_HEIGHT, x - 1] | lit[y : y + PIN_HEIGHT, x + PIN_WIDTH]
        if part.all() and not beside.any():
            found += covered("pin", part.copy(), x, y)
            part[:] = False
    for piece in pieces("pin", lit[LANE_TOP:], 0, LANE_TOP):
        is_ball = piece.box.bottom - piece.box.top >= BALL_HEIGHT
        found.append(dataclasses.replace(piece, kind="ball") if is_ball else piece)
    found += coloured("player", screen, BOWLER, 0, LANE_TOP, 60, LANE_BOTTOM)
    return found + coloured("score", screen, BLUE, 0, 18, 160, 36)
