"""How often an agent plays an exactly best move, in games that can be solved.

A move is right if it keeps the result that the board is worth: a win stays a win, a draw a draw.
"""

from __future__ import annotations

import numpy as np

from rlplay.core import Agent, Array, Game
from rlplay.evaluate import random_legal
from rlplay.match import step_at

SEED = 3_000_000


def positions(game: Game, count: int, seed: int = SEED) -> Array:
    """Return `count` boards of random play, [count], about as many of every length that games last
    for, none of them finished."""
    generator = np.random.default_rng([*b"positions", seed])
    plies = generator.integers(game.max_moves, size=count)
    boards, missing = game.start(count), np.arange(count)
    while len(missing):
        state, left = game.start(len(missing)), plies[missing]
        for ply in range(int(left.max(initial=0))):
            action = random_legal(game.action_mask(state), generator)
            state = np.where(ply < left, game.play(state, action), state)
        boards[missing] = state
        missing = missing[game.over(state)]
    return boards


def accuracy(game: Game, agent: Agent, boards: Array, exact: Array) -> dict[str, float]:
    """Return the shares of boards [N] on which the agent keeps the result (`right`) and plays one
    of the quickest wins or slowest losses (`best`), given what every move is exactly worth, [N, A]
    for the player who moves, NaN where it is illegal. Only boards count on which moves differ."""
    action = agent.act(step_at(game, boards), explore=False).action
    chosen = exact[np.arange(len(boards)), action]
    top, bottom = np.nanmax(exact, 1), np.nanmin(exact, 1)
    matters = np.sign(top) != np.sign(bottom)
    differs = top != bottom
    return {
        "right": float((np.sign(chosen) == np.sign(top))[matters].mean()),
        "best": float((chosen == top)[differs].mean()),
        "boards": float(matters.sum()),
    }
