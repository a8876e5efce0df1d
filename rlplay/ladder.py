"""How strong a run has become: its checkpoints and opponents of known strength on one Elo scale.

Each checkpoint plays every opponent and the checkpoint before it; the opponents play each other.
The last opponent has 0 Elo.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from rlplay import checkpoint, config, plot, record
from rlplay.core import Agent, Mistake, Range
from rlplay.curves import Curve
from rlplay.match import Config as Terms
from rlplay.match import Match, match, ratings, rules
from rlplay.run import Run, load_player, write


@dataclass(frozen=True)
class Config:
    """Who climbs, and how many games decide."""

    opponents: tuple[str, ...] = (
        "uniform",
        "mcts:num_simulations=100",
        "mcts:num_simulations=1000",
    )
    """Agents to be measured against, weak ones first; the last has 0 Elo, for how far one is above
    those that hardly win a game is not known well."""
    num_games: Annotated[int, Range(1)] = 40
    """Games of every two who meet, colours swapped in pairs: of an odd number, one more."""
    random_opening: Annotated[int, Range(0)] = 2
    """Random moves before the agents take over, the same for both games of a pair."""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 1_000_000
    """Seed of the openings."""


def ladder(run: Run, terms: Config, announce: Callable[[str], None]) -> list[Path]:
    """Play all that has to be played, write ladder.json, ladder.png and ladder.svg into the run
    folder and the curve into TensorBoard; return the files. Raises Mistake where the world is no
    game for two, or there is no checkpoint."""
    opponents = list(dict.fromkeys(terms.opponents))
    if not opponents:
        raise Mistake("someone must have 0 Elo: name opponents, as in --opponents uniform mcts")
    steps = [name for name in checkpoint.names(run.checkpoints) if name.isdigit()]
    if not steps:
        raise Mistake(f"{run.name} has no checkpoint yet")
    players: dict[str, Agent] = {}
    game = None
    for name in steps:
        player = load_player(run, name, announce)
        players[name], game = player.agent, rules(player.spec)
        for text in opponents:
            if text not in players:
                players[text] = config.player(text).make(player.spec, terms.seed, learns=False)
    assert game is not None
    meetings = [
        *itertools.combinations(opponents, 2),
        *itertools.product(steps, opponents),
        *itertools.pairwise(steps),
    ]
    results: dict[tuple[str, str], Match] = {}
    played = Terms(terms.num_games, terms.random_opening, terms.seed)
    for i, (one, two) in enumerate(meetings, 1):
        results[one, two] = match(game, players[one], players[two], played)
        numbers = results[one, two].summary()
        announce(f"[{i}/{len(meetings)}] {one} against {two}: {numbers['score']:.0%}")
    found = ratings([*opponents, *steps], results, opponents[-1])
    for name, (elo, low, high) in found.items():
        announce(f"{name}: {elo:+.0f} Elo ({low:+.0f} to {high:+.0f})")
    return draw(run, game.name, found, steps, terms)


def draw(
    run: Run,
    world: str,
    found: dict[str, tuple[float, float, float]],
    steps: list[str],
    terms: Config,
) -> list[Path]:
    """Write ratings (Elo, low, high) by name as JSON, as a figure and into TensorBoard."""
    rows = [
        {"name": name, "elo": elo, "low": low, "high": high}
        for name, (elo, low, high) in found.items()
    ]
    path = run.folder / "ladder.json"
    write(path, json.dumps({"games": terms.num_games, "ratings": rows}, indent=1) + "\n")
    x = np.array([float(name) for name in steps])
    climbed = np.array([found[name] for name in steps]).T
    curves = {run.experiment().agent.name: Curve(x, *climbed)}
    ends = np.array([x[0], x[-1]])
    for name in (name for name in found if name not in steps):
        level = np.array([found[name]] * 2).T
        curves[name] = Curve(ends, *level)
    panel = plot.Panel("Elo", "agent steps", curves)
    paths = plot.save(plot.figure([panel], f"{world}: {run.name}"), run.folder, "ladder")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run.folder)) as writer:
        for name in steps:
            writer.add_scalar("ladder/elo", found[name][0], int(name))
        record.tensorboard_image(writer, "ladder", paths[0].read_bytes(), int(steps[-1]))
    return [path, *paths]
