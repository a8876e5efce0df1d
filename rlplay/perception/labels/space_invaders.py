"""Space Invaders: what its RAM and its screen say. Addresses: Anand et al. 2019 (AtariARI) and our
own (the height and the rows of the invaders, the shots), checked here.

Six rows of six invaders march as one block: RAM says where the block is and which of them live, the
colour gives their pixels. Every mask is exact. Bombs and the player's shots share one colour, and
RAM tells the player's. Bombs blink: they show on every other emulator frame.
"""

from __future__ import annotations

import dataclasses

from rlplay.core import Array
from rlplay.perception.objects import Object, coloured, covered, pieces, window

VARIABLES = {
    "player_x": 28,
    "invaders_x": 26,
    "invaders_y": 16,
    "invaders_left": 17,
    "shot_x": 87,
    "shot_y": 85,
    "lives": 73,
    "score": 104,
}
STEPS = {"invaders_y": 2.0, "shot_y": 2.0}
KINDS = ("player", "invader", "shield", "shot", "bomb", "saucer", "explosion")

GREEN, OLIVE, BROWN, GREY, PURPLE = 196, 20, 52, 6, 82
ROWS, COLUMNS, BOTTOM_ROW = 6, 6, 18  # the address of the bottom row: bit c is column c
BLOCK_TOP, GROUND = 31, 195
ROW_STEP, COLUMN_STEP, WIDTH, HEIGHT = 18, 16, 8, 10
SHIELDS = (40, 72, 104)  # left edges of where each can be


def objects(ram: Array, screen: Array) -> list[Object]:
    found = coloured("player", screen, GREEN, 0, 183, 160, 195)
    found += coloured("saucer", screen, PURPLE, 0, 8, 160, 30)
    for left in SHIELDS:
        found += coloured("shield", screen, BROWN, left, 150, left + 16, 180)
    return found + invaders(ram, screen) + shots(ram, screen)


def invaders(ram: Array, screen: Array) -> list[Object]:
    """Return the living invaders, and what is left of one that was hit."""
    olive = screen[: GROUND - 10] == OLIVE
    olive[:BLOCK_TOP] = False
    left, bottom_row = int(ram[26]) - 1, BLOCK_TOP + 2 * int(ram[16]) + ROW_STEP * (ROWS - 1)
    found = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            if ram[BOTTOM_ROW + row] >> column & 1:
                x, y = left + COLUMN_STEP * column, bottom_row - ROW_STEP * row
                part, x, y = window(olive, x, y, x + WIDTH, y + HEIGHT)
                found += covered("invader", part.copy(), x, y)
                part[:] = False
    return found + pieces("explosion", olive, 0, 0, gap=2)


def shots(ram: Array, screen: Array) -> list[Object]:
    """Return the bombs and the player's shot, which has the one column that RAM knows."""
    x, y = int(ram[87]) - 2, 2 * int(ram[85]) + 4
    flying = pieces("bomb", screen[20:GROUND] == GREY, 0, 20, gap=2)
    return [
        dataclasses.replace(shot, kind="shot")
        if shot.box.left == x and abs(shot.box.top - y) <= 4
        else shot
        for shot in flying
    ]
