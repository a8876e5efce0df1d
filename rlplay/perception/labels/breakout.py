"""Breakout: what its RAM and its screen say. Addresses: Anand et al. 2019 (AtariARI), checked here.

The ball takes the colour of the row it is in, the paddle's beside it and a brick's among them, so
that RAM says which 2 x 4 pixels are its own; what else is lit is paddle or brick. A brick is there
where more than a ball's worth of its cell is lit. All masks are exact but those of a ball that
covers a brick in part: the shared pixels count as the ball's.
"""

from __future__ import annotations

from rlplay.core import Array
from rlplay.perception.objects import Box, Object, covered, window

VARIABLES = {
    "ball_x": 99,
    "ball_y": 101,
    "player_x": 72,
    "bricks_hit": 77,
    "lives": 57,
    "score": 84,
}
KINDS = ("ball", "player", "brick")

LEFT, RIGHT, TOP, BOTTOM = 8, 152, 32, 196  # of the court
PADDLE_TOP, PADDLE_BOTTOM = 189, 193
BRICKS_TOP, BRICK_WIDTH, BRICK_HEIGHT, ROWS, COLUMNS = 57, 8, 6, 6, 18


def objects(ram: Array, screen: Array) -> list[Object]:
    lit = screen > 0
    lit[:, :LEFT] = lit[:, RIGHT:] = lit[:TOP] = lit[BOTTOM:] = False  # walls, score
    found = []
    x, y = int(ram[99]) - 49, int(ram[101]) + 9
    if ram[101] and x > 0 and y < BOTTOM:
        early = list(lit[y - 1, x - 1 : x + 3]) == [False, True, True, False]  # among the bricks
        part, left, top = window(lit, x, y - early, x + 2, y + 4)
        found = covered("ball", part.copy(), left, top)
        part[:] = False
    found += covered("player", lit[PADDLE_TOP:PADDLE_BOTTOM], 0, PADDLE_TOP)
    bricks = lit[BRICKS_TOP : BRICKS_TOP + ROWS * BRICK_HEIGHT, LEFT:RIGHT]
    cells = bricks.reshape(ROWS, BRICK_HEIGHT, COLUMNS, BRICK_WIDTH).swapaxes(1, 2)
    for row, column in zip(*(cells.sum((2, 3)) >= BRICK_WIDTH).nonzero(), strict=True):
        left, top = LEFT + BRICK_WIDTH * int(column), BRICKS_TOP + BRICK_HEIGHT * int(row)
        box = Box(left, top, left + BRICK_WIDTH, top + BRICK_HEIGHT)
        found.append(Object("brick", box, cells[row, column].copy()))
    return found
