"""Tree search over any game, N games at once: AlphaZero's PUCT (Silver et al. 2018), Gumbel search
(Danihelka et al. 2022) and plain UCT (Kocsis and Szepesvari 2006).

Each simulation adds one board to every tree and asks the evaluator once about all N. What the
evaluator is, a network, random play or an exact solver, the search does not know, nor the rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from rlplay import tree as trees
from rlplay.core import Array, Mistake, Range, State
from rlplay.game import Game

Evaluator = Callable[[Array], tuple[Array, Array]]
"""Takes boards [N] and returns logits [N, A] float32 of the moves and the value [N] float32 in
-1..1 for the player who moves. What it says of illegal moves and finished boards is not read."""

MAX_BYTES = 16e9


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
    """Weight of values beside logits in gumbel."""
    reuse: bool = False
    """Go on with the part of the last tree below the board that was reached; not for gumbel."""


class Searched(NamedTuple):
    """What a search has found. In a finished game no move is visited, the policy is the
    evaluator's, and the value is the score."""

    visits: Array  # [N, A] int32, with those of a tree that was reused
    policy: Array  # [N, A], shares of visits, or the improved policy of gumbel: what to learn
    value: Array  # [N], mean of what was seen, for the player who moves
    q_values: Array  # [N, A], for the player who moves; as value if never tried, -1 if illegal
    action: Array  # [N] int64, the most visited move; the winner of the halving in gumbel
    num_simulations: int


class Search:
    """Searches trees of N boards, whatever N is; with `reuse`, it remembers the last ones."""

    def __init__(
        self, game: Game, evaluator: Evaluator, config: Config, generator: np.random.Generator
    ) -> None:
        """Raises Mistake where settings contradict each other or the game has not two players."""

    def run(
        self, state: Array, num_simulations: int | None = None, explore: bool = False
    ) -> Searched:
        """Search the boards `state` [N], with `num_simulations` for each instead of the setting;
        with `explore`, with noise at the root. Without simulations, policy and value are the
        evaluator's own. Raises Mistake where the trees do not fit in memory and ValueError where
        the evaluator returned what is not a number."""

    def choose(self, searched: Searched, ply: Array | int, explore: bool) -> Array:
        """Return the moves to play, [N] int64: to explore, drawn by temperature where `ply` [N] is
        below temperature_moves; else `searched.action`."""

    def forget(self) -> None:
        """Drop the last trees: the next boards do not follow from them."""

    def state_dict(self) -> State:
        """Return the random numbers and, with `reuse`, the last trees."""

    def load_state_dict(self, state: State) -> None: ...


def uniform(game: Game) -> Evaluator:
    """Return an evaluator that knows nothing: all moves alike, every board a draw."""


def rollouts(game: Game, generator: np.random.Generator, count: int = 1) -> Evaluator:
    """Return an evaluator that plays `count` random games to the end from each board."""
