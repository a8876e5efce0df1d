"""Tree search over any game, N games at once: AlphaZero's PUCT (Silver et al. 2018), Gumbel search
(Danihelka et al. 2022) and plain UCT (Kocsis and Szepesvari 2006).

Each simulation adds one board to every tree and asks the evaluator once about all N. What the
evaluator is, a network, random play or an exact solver, the search does not know, nor the rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np

from rlplay import tree as trees
from rlplay.core import Array, Game, Mistake, NonFinite, Range, State
from rlplay.learners import draw

Evaluator = Callable[[Array], tuple[Array, Array]]
"""Takes boards [N] and returns logits [N, A] float32 of the moves and the value [N] float32 in
-1..1 for the player who moves. What it says of illegal moves and finished boards is not read."""

MAX_BYTES = 16e9
"""Of the trees of one search."""


@dataclass(frozen=True)
class Config:
    """How a tree is searched."""

    kind: Literal["puct", "gumbel", "uct"] = "puct"
    """puct is AlphaZero's; gumbel finds better moves in few simulations; uct reads no priors."""
    num_simulations: Annotated[int, Range(0)] = 64
    """Boards looked at for each move; 0 to play as the evaluator says."""
    c_puct: Annotated[float, Range(0)] = 1.25
    """How strongly puct and uct explore."""
    c_puct_base: Annotated[float, Range(1)] = 19652.0
    """Visits of a node at which puct begins to explore more strongly."""
    first_play: Literal["parent", "draw", "loss"] = "parent"
    """What puct takes a move never tried to be worth: as much as the board so far, a draw, or a
    loss, which is the paper's."""
    first_play_reduction: Annotated[float, Range(0)] = 0.2
    """How much less than the board so far, where first_play is parent."""
    dirichlet_alpha: Annotated[float, Range(0)] = 0.0
    """Noise at the root of puct, only to explore: small for noise on few moves, 0 for 10 divided by
    the number of legal moves. The paper took 0.3 in chess, 0.15 in shogi and 0.03 in Go."""
    dirichlet_fraction: Annotated[float, Range(0, 1)] = 0.25
    """Share of the noise in the priors at the root."""
    temperature: Annotated[float, Range(0)] = 1.0
    """To explore, moves are drawn in proportion to visits^(1 / temperature); 0 for the most visited
    move. Gumbel search needs none: its noise has drawn the move already."""
    temperature_moves: Annotated[int, Range(0)] = 30
    """For so many plies of a game; afterwards the most visited move is played."""
    max_considered: Annotated[int, Range(1)] = 16
    """Moves among which gumbel begins to halve."""
    c_visit: Annotated[float, Range(0)] = 50.0
    """Gumbel trusts values as if each move had been visited so often already."""
    c_scale: Annotated[float, Range(0)] = 1.0
    """Weight of values beside logits in gumbel. The paper took 1 in Go and chess, 0.1 for Atari;
    with a high one, moves that look bad at first are hardly looked at again."""
    reuse: bool = False
    """Go on with the part of the last tree below the board that was reached; not for gumbel."""


class Searched(NamedTuple):
    """What a search has found. In a finished game no move is visited, the policy is the
    evaluator's, and the value is the score."""

    visits: Array  # [N, A] int32, with those of a tree that was reused
    policy: Array  # [N, A], shares of visits, or the improved policy of gumbel: what to learn
    value: Array  # [N], for the player who moves: the mean of what was seen; in gumbel, which looks
    # at moves that it does not believe in, what the improved policy is worth
    q_values: Array  # [N, A], for the player who moves; the mean if never tried, -1 if illegal
    action: Array  # [N] int64, the most visited move; the winner of the halving in gumbel
    num_simulations: int


class Search:
    """Searches trees of N boards, whatever N is; with `reuse`, it remembers the last ones."""

    def __init__(
        self, game: Game, evaluator: Evaluator, config: Config, generator: np.random.Generator
    ) -> None:
        """Raises Mistake where settings contradict each other or the game has not two players."""
        if game.num_players != 2:
            raise Mistake(f"search is for two players, and {game.name} has {game.num_players}")
        if config.reuse and config.kind == "gumbel":
            raise Mistake("gumbel counts visits from none: set reuse=False, or kind=puct")
        self.game, self.evaluator, self.config, self.generator = game, evaluator, config, generator
        self.rule = rule(config)
        self.tree: trees.Tree | None = None

    def run(
        self, state: Array, num_simulations: int | None = None, explore: bool = False
    ) -> Searched:
        """Search the boards `state` [N], with `num_simulations` for each instead of the setting;
        with `explore`, with noise at the root. Without simulations, policy and value are the
        evaluator's own. Raises Mistake where the trees do not fit in memory and NonFinite where the
        evaluator returned what is not a number."""
        count = self.config.num_simulations if num_simulations is None else num_simulations
        if state.dtype != self.game.dtype:
            raise ValueError(f"boards of {self.game.name} are {self.game.dtype}, not {state.dtype}")
        state = np.ascontiguousarray(state)
        tree = self.plant(state, count)
        prior, considered = self.root(tree, explore), self.considered(tree, count)
        parent, action = np.empty(len(state), np.int32), np.empty(len(state), np.int64)
        board = np.empty(len(state), self.game.dtype)
        for visits in considered:
            trees.select(*tree[:3], prior, visits, self.rule, parent, action, as_bytes(board))
            self.grow(tree, parent, action, self.game.play(board, action))
        if not np.isfinite(tree.nodes["value"][:, 0]).all():
            what = (
                "the network, or whatever evaluates, returned logits or values that are not numbers"
            )
            raise NonFinite(what, {"boards": state})
        return self.look(tree, prior, count)

    def choose(self, searched: Searched, ply: Array | int, explore: bool) -> Array:
        """Return the moves to play, [N] int64: to explore, drawn by temperature where `ply` [N] is
        below temperature_moves; else `searched.action`."""
        config = self.config
        if not explore or config.kind == "gumbel" or config.temperature == 0:
            return searched.action
        share = searched.visits / np.maximum(searched.visits.max(1, keepdims=True), 1)
        weight = share ** (1 / config.temperature)  # [N, A]
        weight = np.where(weight.any(1, keepdims=True), weight, searched.policy)
        drawn = draw(weight / weight.sum(1, keepdims=True), self.generator)
        return np.where(ply < config.temperature_moves, drawn, searched.action)

    def forget(self) -> None:
        """Drop the last trees: the next boards do not follow from them."""
        self.tree = None

    def state_dict(self) -> State:
        """Return the random numbers and, with `reuse`, the last trees."""
        kept = self.tree if self.config.reuse else None
        own = {} if kept is None else {"tree": kept._asdict()}
        return {"generator": self.generator.bit_generator.state, **own}

    def load_state_dict(self, state: State) -> None:
        self.generator.bit_generator.state = state["generator"]
        self.tree = None
        if "tree" in state:
            self.tree = trees.Tree(**{name: np.array(a) for name, a in state["tree"].items()})

    def plant(self, state: Array, num_simulations: int) -> trees.Tree:
        """Return trees with the boards `state` [N] as roots and room for all simulations, in the
        memory of the last ones where that is large enough."""
        tree, num_kept, num_games = self.tree, 0, len(state)
        if tree is not None and len(tree.size) != num_games:
            tree = None
        elif tree is not None and self.config.reuse:
            trees.keep(*tree, as_bytes(state))
            num_kept = int(tree.size.max())
        elif tree is not None:
            tree.size[:] = 0
        num_nodes = max(num_kept, 1) + num_simulations
        if tree is None or tree.nodes.shape[1] < num_nodes:
            tree = self.room(num_games, num_nodes, tree, num_kept)
        self.tree = tree
        if (fresh := tree.size == 0).any():
            parent = np.where(fresh, trees.NO_PARENT, trees.NO_LEAF).astype(np.int32)
            self.grow(tree, parent, np.zeros(num_games, np.int64), state)
        return tree

    def room(
        self, num_games: int, num_nodes: int, old: trees.Tree | None, num_kept: int
    ) -> trees.Tree:
        """Return trees with room for so many nodes and the first nodes of the old ones in them.
        Raises Mistake where they do not fit in memory."""
        num_actions, num_bytes = self.game.num_actions, self.game.dtype.itemsize
        num_bytes_per_node = trees.NODE.itemsize + num_actions * trees.EDGE.itemsize + num_bytes
        if (size := num_games * num_nodes * num_bytes_per_node) > MAX_BYTES:
            raise Mistake(
                f"{num_games} search trees of {num_nodes} boards of {self.game.name} need"
                f" {size * 1e-9:.0f} GB; set num_simulations lower, or play fewer games at once"
            )
        tree = trees.empty(num_games, num_nodes, num_actions, num_bytes)
        if old is not None:
            for new, kept in zip(tree[:3], old[:3], strict=True):
                new[:, :num_kept] = kept[:, :num_kept]
            tree.size[:] = old.size
        return tree

    def grow(self, tree: trees.Tree, parent: Array, action: Array, leaf: Array) -> None:
        """Evaluate the boards `leaf` [N] and hang them into the trees."""
        game = self.game
        logits, value = self.evaluator(leaf)
        over, score, player = game.over(leaf), game.score(leaf), game.player(leaf)
        seen = (over, score, player, game.action_mask(leaf), logits, value)
        trees.grow(*tree, parent, action, as_bytes(leaf), *seen)

    def root(self, tree: trees.Tree, explore: bool) -> Array:
        """Return what `select` takes in place of the priors of the roots, [N, A]."""
        edges = tree.edges[:, 0]
        prior, legal = edges["prior"], edges["child"] != trees.ILLEGAL
        if self.config.kind == "gumbel":
            logits = np.log(np.maximum(prior, trees.LEAST))
            noise = self.generator.gumbel(size=prior.shape).astype(np.float32) if explore else 0
            return np.where(legal, logits + noise, -np.inf).astype(np.float32)
        fraction = self.config.dirichlet_fraction
        if not explore or fraction == 0 or self.config.kind == "uct":
            return np.ascontiguousarray(prior)
        alpha = self.config.dirichlet_alpha or 10 / legal.sum(1, keepdims=True)
        noise = self.generator.standard_gamma(alpha, prior.shape) * legal + 1e-30 * legal
        noise /= noise.sum(1, keepdims=True)
        return ((1 - fraction) * prior + fraction * noise).astype(np.float32)

    def considered(self, tree: trees.Tree, num_simulations: int) -> Array:
        """Return the visits of the root's moves among which each simulation of Gumbel search has to
        choose, [simulations, N] int32."""
        visits = np.zeros((num_simulations, len(tree.size)), np.int32)
        if self.config.kind == "gumbel":
            num_legal = (tree.edges["child"][:, 0] != trees.ILLEGAL).sum(1)
            num_considered = np.minimum(num_legal, self.config.max_considered)
            for number in np.unique(num_considered):
                plan = sequential_halving(int(number), num_simulations)
                visits[:, num_considered == number] = plan[:, None]
        return visits

    def look(self, tree: trees.Tree, root: Array, num_simulations: int) -> Searched:
        """Return what the roots have come to."""
        node, edges = tree.nodes[:, 0], tree.edges[:, 0]
        side = np.where(node["player"] == 0, 1, -1).astype(np.float32)
        value = (side * node["value"] / node["visits"]).astype(np.float32)
        visits, prior = np.ascontiguousarray(edges["visits"]), edges["prior"]
        legal = edges["child"] != trees.ILLEGAL
        q_values = np.where(legal, value[:, None], np.float32(-1))
        np.divide(side[:, None] * edges["value"], visits, out=q_values, where=visits > 0)
        if self.config.kind == "gumbel" and num_simulations > 0:
            policy, value, rank = trees.improved(tree.nodes, tree.edges, root, self.rule)
            action = np.where(visits == visits.max(1, keepdims=True), rank, -np.inf).argmax(1)
        else:
            total = visits.sum(1, keepdims=True)
            policy = np.where(total > 0, visits / np.maximum(total, 1), prior).astype(np.float32)
            action = np.where(total > 0, visits, prior).argmax(1)
        return Searched(visits, policy, value, q_values, action, num_simulations)


def rule(config: Config) -> trees.Rule:
    """Return the settings as numbers for the kernels."""
    first_play = {"parent": -config.first_play_reduction, "draw": 0.0, "loss": -1.0}
    kind = {"puct": trees.PUCT, "uct": trees.UCT, "gumbel": trees.GUMBEL}[config.kind]
    return trees.Rule(
        kind,
        float(config.c_puct),
        float(config.c_puct_base),
        float(first_play[config.first_play]),
        float(config.first_play == "parent"),
        float(config.c_visit),
        float(config.c_scale),
    )


def sequential_halving(num_considered: int, num_simulations: int) -> Array:
    """Return how often the move to simulate has been visited before, [simulations] int32: rounds of
    equally many visits for each move still considered, of which the better half goes on to the next
    round, until all simulations are spent (Danihelka et al. 2022, algorithm 2)."""
    plan: list[int] = []
    num_rounds = max(1, math.ceil(math.log2(num_considered)))
    remaining, before = num_considered, 0
    while len(plan) < num_simulations:
        extra = max(1, num_simulations // (num_rounds * remaining))
        for visit in range(before, before + extra):
            plan += [visit] * remaining
        before += extra
        remaining = max(min(2, num_considered), remaining // 2)
    return np.array(plan[:num_simulations], np.int32)


def uniform(game: Game) -> Evaluator:
    """Return an evaluator that knows nothing: all moves alike, every board a draw."""

    def evaluate(state: Array) -> tuple[Array, Array]:
        logits = np.zeros((len(state), game.num_actions), np.float32)
        return logits, np.zeros(len(state), np.float32)

    return evaluate


def rollouts(game: Game, generator: np.random.Generator, count: int = 1) -> Evaluator:
    """Return an evaluator that plays `count` random games to the end from each board."""

    def evaluate(state: Array) -> tuple[Array, Array]:
        score = game.rollout(state, generator)
        for _ in range(count - 1):
            score = score + game.rollout(state, generator)
        value = score[np.arange(len(state)), game.player(state)] / np.float32(count)
        return np.zeros((len(state), game.num_actions), np.float32), value

    return evaluate


def as_bytes(state: Array) -> Array:
    """Return boards [N] as [N, B] uint8, the same memory."""
    return state.view(np.uint8).reshape(len(state), -1)
