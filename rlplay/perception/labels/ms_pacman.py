"""Ms. Pac-Man: what its RAM and its screen say. Addresses: Anand et al. 2019 (AtariARI), checked.

Each ghost has a colour of its own until an energizer turns all of them blue, then white; the
emulator shows only some of the ghosts in any one frame. Ghosts and player are exact to the pixel
(eyes are holes in the mask), in the tunnel only on the side where RAM has them. Pellets are small
pieces of the walls' colour; one that somebody stands on is seen in part. Checked in the first maze:
the others have colours of their own, which are taken from the screen.
"""

from __future__ import annotations

import numpy as np

from rlplay.core import Array
from rlplay.perception.objects import Object, coloured, has_colour, pieces, window

VARIABLES = {
    "player_x": 10,
    "player_y": 16,
    "blinky_x": 9,
    "blinky_y": 15,
    "pinky_x": 8,
    "pinky_y": 14,
    "inky_x": 7,
    "inky_y": 13,
    "sue_x": 6,
    "sue_y": 12,
    "fruit_x": 11,
    "fruit_y": 17,
    "ghosts_left": 19,
    "dots_eaten": 119,
    "score": 120,
    "lives": 123,
}
KINDS = (
    "player",
    "blinky",
    "pinky",
    "inky",
    "sue",
    "edible_ghost",
    "fruit",
    "pellet",
    "energizer",
)

YELLOW, BLUE, FLASH = 42, 150, 12
GHOSTS = {"blinky": 70, "pinky": 88, "inky": 184, "sue": 38}
MAZE_TOP, MAZE_BOTTOM = 1, 172
SPRITE_WIDTH, SPRITE_HEIGHT, REACH = 8, 10, 6
"""Sprites, pixels, and how far from where RAM has it one can be drawn: RAM is of the next frame."""


def objects(ram: Array, screen: Array) -> list[Object]:
    maze = screen[MAZE_TOP:MAZE_BOTTOM]
    floor, wall = np.bincount(maze.ravel(), minlength=256).argsort()[:-3:-1]
    found = coloured("player", screen, YELLOW, *near(ram, "player"))
    for ghost, colour in GHOSTS.items():
        found += coloured(ghost, screen, colour, *near(ram, ghost))
    frightened = has_colour(maze, (BLUE, FLASH))
    found += pieces("edible_ghost", frightened, 0, MAZE_TOP)
    if ram[VARIABLES["fruit_x"]]:
        known = (int(floor), int(wall), YELLOW, BLUE, FLASH, *GHOSTS.values())
        part, left, top = window(screen, *near(ram, "fruit"))
        found += pieces("fruit", ~has_colour(part, known), left, top)
    for piece in pieces("pellet", maze == wall, 0, MAZE_TOP):
        left, top, right, bottom = piece.box
        if right - left <= 4 and bottom - top <= 2:
            found.append(piece)
        elif right - left <= 4 and bottom - top <= 8:
            found.append(Object("energizer", piece.box, piece.mask))
    return found


def near(ram: Array, name: str) -> tuple[int, int, int, int]:
    """Return the rectangle in which a sprite must be, given where RAM has it."""
    left, top = int(ram[VARIABLES[f"{name}_x"]]) - 12, int(ram[VARIABLES[f"{name}_y"]]) + 1
    return (
        left - REACH,
        max(top - REACH, MAZE_TOP),
        left + SPRITE_WIDTH + REACH,
        min(top + SPRITE_HEIGHT + REACH, MAZE_BOTTOM),
    )
