"""Agents against agents: who is stronger, by how much, and how sure that is.

Games come in pairs: both begin from the same opening of random moves, with colours swapped, so that
neither the opening nor the first move favours anyone. All games are played side by side. Elo is
the scale of Elo (1978): 400 points are ten to one. It knows rules and agents, and no training.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from rlplay import config, run
from rlplay.core import Agent, Array, Decision, Game, Mistake, Range, Spec, nearest
from rlplay.evaluate import random_legal
from rlplay.game import step_at

FIRM = 0.5
"""Games drawn against nobody that each agent is credited with, so that no Elo is infinite."""


@dataclass(frozen=True)
class Config:
    """How a match is played."""

    num_games: Annotated[int, Range(1)] = 200
    """Games of a match, colours swapped in pairs: of an odd number, one more is played."""
    random_opening: Annotated[int, Range(0)] = 2
    """Random moves before the agents take over, the same for both games of a pair."""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 1_000_000
    """Seed of the openings."""


@dataclass(frozen=True)
class Match:
    """What G games between agents A and B came to. Games 2 i and 2 i + 1 are a pair: A has the
    first move in one and the second in the other."""

    scores: Array  # [G] float64, of A: 1 won, 0.5 drawn, 0 lost
    first: Array  # [G] int64, the player (0 or 1) that A was
    actions: Array  # [G, T] int64, the moves of each game, -1 after its end
    opening: int  # how many of the moves were random

    def summary(self) -> dict[str, float]:
        """Return the numbers to report, by name: A's share of the points with its 95% interval over
        pairs, games won, drawn and lost, and the difference in Elo with its interval."""
        pairs = self.scores.reshape(-1, 2).mean(1)
        share = float(pairs.mean())
        means = drawn_again(pairs, 10_000, np.random.default_rng(0)).mean(1)
        low, high = np.quantile(means, [0.025, 0.975])
        games = len(self.scores)
        return {
            "score": share,
            "ci_low": float(low),
            "ci_high": float(high),
            "won": float((self.scores == 1).sum()),
            "drawn": float((self.scores == 0.5).sum()),
            "lost": float((self.scores == 0).sum()),
            "games": float(games),
            "elo": elo(share, games),
            "elo_low": elo(float(low), games),
            "elo_high": elo(float(high), games),
        }

    def sentence(self) -> str:
        """Return these numbers in words."""
        numbers = self.summary()
        return (
            f"{len(self.scores)} games: {numbers['score']:.1%} of the points, 95% interval"
            f" {numbers['ci_low']:.1%} to {numbers['ci_high']:.1%}; won {numbers['won']:g}, drawn"
            f" {numbers['drawn']:g}, lost {numbers['lost']:g}; Elo {numbers['elo']:+.0f}"
            f" ({numbers['elo_low']:+.0f} to {numbers['elo_high']:+.0f})"
        )


def save(found: Match, names: Sequence[str], game: Game, folder: Path) -> Path:
    """Write the games of a match as .npz into a folder; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^A-Za-z0-9@._-]+", "-", "-".join([game.name, *names]))
    path = folder / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}.npz"
    columns = {"names": np.array(names), "game": np.array(game.name), **vars(found)}
    half = path.with_name(f".{path.name}")
    np.savez_compressed(half, allow_pickle=False, **columns)
    half.replace(path)
    return path


def elo(share: float, games: int) -> float:
    """Return the Elo difference that a share of the points tells of, kept finite as if FIRM points
    had gone either way besides."""
    share = (share * games + FIRM) / (games + 2 * FIRM)
    return float(400 * np.log10(share / (1 - share)))


def seats(names: list[str], world: str, root: Path) -> tuple[Spec, list[Agent]]:
    """Return a game and its players. A name is a run, RUN@CHECKPOINT, or an agent with settings, as
    in mcts:num_simulations=1000; without `world` the game is that of the run. Raises Mistake."""
    spec, agents = None, {}
    if world:
        spec = config.world(world).make().spec
    known = config.names("agents")
    for name in names:
        if (agent := name.partition(":")[0]) not in known:
            which = name.partition("@")[2]
            try:
                folder = run.find(name.partition("@")[0], root)
            except Mistake as mistake:
                hint = nearest(agent, known) or "; `rlplay list agents` names the agents"
                raise Mistake(f"{mistake}{hint}") from mistake
            player = run.load_player(folder, which, run.print_to_stderr)
            agents[name] = player.agent
            game = getattr(spec.model, "name", "") if spec is not None else ""
            if spec is not None and getattr(player.spec.model, "name", "") != game:
                raise Mistake(
                    f"{name} has learned {player.experiment.env.world}, which is not {game}: take a"
                    " run of that game, or an agent such as mcts"
                )
            spec = player.spec
    if spec is None:
        raise Mistake(
            "name the game, as in `rlplay play connect_four` or `rlplay match A B --game othello`,"
            " or a run that has learned one"
        )
    rules(spec)
    for name in names:
        if name not in agents:
            agents[name] = config.player(name).make(spec, 0, learns=False)
    return spec, [agents[name] for name in names]


def rules(spec: Spec) -> Game:
    """Return the rules of a game for two. Raises Mistake where a world tells none."""
    if spec.num_players != 2 or not hasattr(spec.model, "play"):
        raise Mistake("this world does not tell the rules of a game for two, as connect_four does")
    return spec.model


def match(game: Game, one: Agent, two: Agent, terms: Config) -> Match:
    """Play `num_games` between two agents, all side by side. Raises Mistake where the game is too
    short for such an opening, and where an agent plays an illegal move."""
    num_pairs = (terms.num_games + 1) // 2
    generator = np.random.default_rng([*b"match", terms.seed])
    state, opening = openings(game, num_pairs, terms.random_opening, generator)
    state, moves = np.repeat(state, 2), [np.repeat(column, 2) for column in opening]
    first = np.tile([0, 1], num_pairs)  # [G] the player that agent one is
    while not (over := game.over(state)).all():
        action = np.full(len(state), -1)
        mover = game.player(state)
        for agent, is_its in ((one, mover == first), (two, mover != first)):
            rows = np.flatnonzero(is_its & ~over)
            if len(rows):
                action[rows] = decide(game, agent, state[rows]).action
        moves.append(action)
        state = game.play(state, np.where(over, 0, action))
    points = game.score(state)[np.arange(len(state)), first]
    actions = np.stack(moves, 1) if moves else np.zeros((len(state), 0), np.int64)
    return Match((1 + points.astype(np.float64)) / 2, first, actions, terms.random_opening)


def decide(game: Game, agent: Agent, state: Array) -> Decision:
    """Return what the agent plays on boards [N], as well as it knows. Raises Mistake for an illegal
    move."""
    step = step_at(game, state)
    decision = agent.act(step, explore=False)
    action = np.asarray(decision.action)
    legal = (action >= 0) & (action < game.num_actions)
    legal[legal] = step.action_mask[legal, action[legal]]
    if not legal.all():
        wrong = int(action[~legal][0])
        name = game.action_names[wrong] if 0 <= wrong < game.num_actions else wrong
        raise Mistake(f"{type(agent).__name__} played the illegal move {name} of {game.name}")
    return decision


def openings(
    game: Game, n: int, num_moves: int, generator: np.random.Generator
) -> tuple[Array, list[Array]]:
    """Return n boards after `num_moves` random legal moves that do not end the game, and the moves,
    [n] each. Raises Mistake where hardly any game lasts that long."""
    boards, moves = game.start(n), [np.zeros(n, np.int64) for _ in range(num_moves)]
    missing = np.arange(n)
    for _ in range(1000):
        state = game.start(len(missing))
        for column in moves:
            column[missing] = action = random_legal(game.action_mask(state), generator)
            state = game.play(state, action)
        boards[missing] = state
        missing = missing[game.over(state)]
        if not len(missing):
            return boards, moves
    raise Mistake(f"{game.name} hardly ever lasts {num_moves} random moves; choose fewer")


def drawn_again(pairs: Array, count: int, generator: np.random.Generator) -> Array:
    """Return matches like the one whose P pairs of games scored `pairs`, [count, P], drawn from
    these. Who won all, or lost all, is not sure to again: then one pair that went the other way is
    among them."""
    if (pairs == pairs[0]).all() and pairs[0] in (0, 1):
        pairs = np.append(pairs, 1 - pairs[0])
    drawn = generator.integers(len(pairs), size=(count, len(pairs)))
    return pairs[drawn]


def ratings(
    names: Sequence[str], results: Mapping[tuple[str, str], Match], anchor: str
) -> dict[str, tuple[float, float, float]]:
    """Return the Elo of each name with its 95% interval, such that `anchor` has 0: the likeliest
    under the model of Bradley and Terry (1952), intervals by weighing the pairs of games anew, the
    Bayesian bootstrap (Rubin 1981). Each two are credited with a pair won and a pair lost besides,
    so that no Elo is infinite.

    `results` holds the match of each two names that met, the first being agent one."""
    index = {name: i for i, name in enumerate(names)}
    pairs = [
        (index[a], index[b], np.append(found.scores.reshape(-1, 2).mean(1), [0.0, 1.0]))
        for (a, b), found in results.items()
    ]
    generator = np.random.default_rng(0)

    def fit(anew: bool) -> Array:
        won = np.zeros((len(names), len(names)))
        for a, b, scores in pairs:
            num = len(scores)
            weight = generator.standard_exponential(num) if anew else np.ones(num)
            share = weight @ scores / weight.sum()
            won[a, b] += 2 * num * share
            won[b, a] += 2 * num * (1 - share)
        return bradley_terry(won)

    best = fit(anew=False)
    spread = np.stack([fit(anew=True) for _ in range(200)])
    best = best - best[index[anchor]]
    spread = spread - spread[:, index[anchor], None]
    low, high = np.quantile(spread, [0.025, 0.975], axis=0)
    return {name: (float(best[i]), float(low[i]), float(high[i])) for name, i in index.items()}


def bradley_terry(won: Array) -> Array:
    """Return the likeliest Elo of each player [K], mean 0, given the points won [K, K] by the row's
    player against the column's (Hunter 2004, the minorize-maximize iteration)."""
    games, total = won + won.T, won.sum(1)
    strength = np.ones(len(won))
    for _ in range(10_000):
        expected = games / (strength[:, None] + strength)
        following = total / expected.sum(1)
        following /= np.exp(np.log(following).mean())
        if np.abs(np.log(following / strength)).max() < 1e-9:
            break
        strength = following
    return 400 * np.log10(strength)
