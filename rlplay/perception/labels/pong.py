"""Pong: what its RAM and its screen say. Addresses: Anand et al. 2019 (AtariARI), checked here.

The two paddles, the ball and both scores have colours of their own in their parts of the screen, so
that every mask is exact. The ball is hidden for some frames after each point.
"""

from __future__ import annotations

from rlplay.core import Array
from rlplay.perception.objects import Object, coloured

VARIABLES = {
    "player_x": 46,
    "player_y": 51,
    "enemy_x": 45,
    "enemy_y": 50,
    "ball_x": 49,
    "ball_y": 54,
    "enemy_score": 13,
    "player_score": 14,
}
KINDS = ("ball", "player", "enemy", "score")

FIELD = (0, 34, 160, 194)  # left, top, right, bottom
ORANGE, GREEN, WHITE = 56, 200, 14


def objects(ram: Array, screen: Array) -> list[Object]:
    return [
        *coloured("ball", screen, WHITE, *FIELD),
        *coloured("player", screen, GREEN, *FIELD),
        *coloured("enemy", screen, ORANGE, *FIELD),
        *coloured("score", screen, ORANGE, 0, 0, 80, 24),
        *coloured("score", screen, GREEN, 80, 0, 160, 24),
    ]
