"""How often an agent plays an exactly best move, in games that can be solved.

A move is right if it keeps the result that the board is worth: a win stays a win, a draw a draw.
A game that can be solved has `solve(state)`, [N, A]: what each move is worth to the player who
moves, NaN where it is illegal; and `solves_quickly(state)`, [N] bool, where that may take minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rlplay import run
from rlplay.core import Agent, Array, Game
from rlplay.evaluate import random_legal
from rlplay.match import decide
from rlplay.run import Player, Run

SEED = 3_000_000
NUM_BOARDS = 1000
PHASES = ("opening", "middle", "end")
"""Boards of which less than a third, less than two thirds, and more is filled."""


def positions(game: Game, count: int, seed: int = SEED) -> Array:
    """Return `count` boards of random play, [count], about as many of every length that games last
    for, none of them finished."""
    generator = np.random.default_rng([*b"positions", seed])
    plies = generator.integers(longest(game), size=count)
    boards, missing = game.start(count), np.arange(count)
    while len(missing):
        state, left = game.start(len(missing)), plies[missing]
        for ply in range(int(left.max(initial=0))):
            action = random_legal(game.action_mask(state), generator)
            state = np.where(ply < left, game.play(state, action), state)
        boards[missing] = state
        missing = missing[game.over(state)]
    return boards


def longest(game: Game) -> int:
    """Return how many moves one random game in a thousand takes: in Othello, max_moves counts
    passes that hardly ever come up."""
    generator, state = np.random.default_rng(0), game.start(10_000)
    for ply in range(game.max_moves):
        if (~game.over(state)).mean() < 1e-3:
            return ply
        state = game.play(state, random_legal(game.action_mask(state), generator))
    return game.max_moves


def solved(game: Any, boards: Array, announce: Callable[[str], None]) -> tuple[Array, Array]:
    """Return those of the boards that are solved quickly, [N], and what their moves are exactly
    worth, [N, A]; announce how many are left out. The game can be solved."""
    quick = game.solves_quickly(boards) if hasattr(game, "solves_quickly") else slice(None)
    known = boards[quick]
    if left_out := len(boards) - len(known):
        announce(
            f"moves are judged on {len(known):,} of {len(boards):,} boards: what the other"
            f" {left_out} are exactly worth is not on file, and would take long"
        )
    return known, game.solve(known)


def accuracy(game: Game, agent: Agent, boards: Array, exact: Array) -> dict[str, float]:
    """Return the shares of boards [N] on which the agent keeps the result (`right`, also by phase
    of the game) and plays one of the very best moves (`best`), given what every
    move is exactly worth, [N, A] for the player who moves, NaN where it is illegal. Only boards
    count on which moves differ; a share of none is left out."""
    action = decide(game, agent, boards).action
    chosen = exact[np.arange(len(boards)), action]
    top, bottom = np.nanmax(exact, 1), np.nanmin(exact, 1)
    matters = np.sign(top) != np.sign(bottom)
    right = np.sign(chosen) == np.sign(top)
    filled = game.observe(boards)[:, :2].mean((2, 3)).sum(1)  # [N] the share of cells with a stone
    phase = np.minimum((len(PHASES) * filled).astype(int), len(PHASES) - 1)
    counted = {
        "right": right[matters],
        **{f"right_{name}": right[matters & (phase == i)] for i, name in enumerate(PHASES)},
        "best": (chosen == top)[top != bottom],
    }
    shares = {name: float(each.mean()) for name, each in counted.items() if len(each)}
    return {**shares, "boards": float(matters.sum())}


def sentence(shares: dict[str, float]) -> str:
    """Return an accuracy in one line."""
    if not shares["boards"]:
        return "there is no solved board on which moves differ"
    phases = [f"{name} {shares[key]:.0%}" for name in PHASES if (key := f"right_{name}") in shares]
    return (
        f"{shares['right']:.1%} of moves keep the result ({', '.join(phases)}), judged on"
        f" {shares['boards']:,.0f} boards where they differ; {shares['best']:.1%} are the very best"
    )


def perfect_moves(
    player: Player, folder: Run, which: str, words: list[str]
) -> dict[str, dict[str, float]]:
    """Return how often the agent of a run plays exactly best, as it plays and, where it searches
    with a network, with that alone; empty where its world cannot be solved."""
    game, agents = player.spec.model, {"as it plays": player.agent}
    if not hasattr(game, "solve"):
        return {}
    if getattr(player.experiment.agent, "num_simulations_evaluation", 0):
        alone = [*words, "--agent.num-simulations-evaluation=0"]
        network = run.load_player(folder, which, lambda sentence: None, alone).agent
        agents = {"with search": player.agent, "network alone": network}
    boards = positions(game, NUM_BOARDS)
    boards, exact = solved(game, boards, run.print_to_stderr)
    return {who: accuracy(game, agent, boards, exact) for who, agent in agents.items()}
