"""Alpha-beta (Knuth and Moore 1975) to a fixed depth, for any game for two; all games at once.

The recursion of the paper, but each call takes many boards and plays every move on all of them at
once. A branch is followed for those boards alone that it still matters for, so what is pruned, game
by game, is what one game alone would prune. The moves after which a board looks best are tried
first; before the last ply nothing is pruned, for there looking is all there is to do.

A board looks as the game's `heuristic(state)` says, [N] in (-1, 1) for the player who moves, and
without one, like a draw. A win counts the plies left, itself included: sooner is better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from rlplay.chance import Chance
from rlplay.core import Agent, Array, Decision, Game, Mistake, Range, Spec, State, Step


@dataclass(frozen=True)
class Config:
    name: Literal["minimax"] = "minimax"
    depth: Annotated[int, Range(1, 20)] = 3
    """Plies to look ahead."""
    ties: Literal["random", "first"] = "random"
    """Which of equally good moves that look equally good at once is played: any, or the first."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> Minimax:
        """Build the agent. Raises Mistake where the world is no game for two."""
        if spec.num_players != 2 or not hasattr(spec.model, "play"):
            raise Mistake("minimax plays games for two, such as connect_four, and this is none")
        return Minimax(self, spec.model, seed)


class Minimax(Agent):
    """Notes "value" [N], what the game is worth to the player who moves: the heuristic of the board
    that best play leads to, 1 or -1 where the end is in sight."""

    def __init__(self, config: Config, game: Game, seed: int) -> None:
        self.config, self.game = config, game
        self.heuristic: Any = getattr(game, "heuristic", None)
        self.generator, self.chance = np.random.default_rng([*b"minimax", seed]), Chance()

    def act(self, step: Step, explore: bool = True) -> Decision:
        state: Array = step.state
        live = ~self.game.over(state)
        action, value = np.zeros(len(state), np.int64), np.zeros(len(state), np.float32)
        if live.any():
            depth, window = self.config.depth, np.full(int(live.sum()), np.inf, np.float32)
            shuffled = self.config.ties == "random"
            shuffle = self.chance.of(self.generator, explore) if shuffled else None
            value[live], action[live] = self.search(state[live], depth, -window, window, shuffle)
        return Decision(action, {"value": value.clip(-1, 1)})

    def search(
        self,
        state: Array,
        depth: int,
        alpha: Array,
        beta: Array,
        shuffle: np.random.Generator | None = None,
    ) -> tuple[Array, Array]:
        """Return the values of unfinished boards [N] for the players who move, and their best moves
        [N] int64. A value not between alpha and beta [N] is a bound on the same side of them."""
        game = self.game
        player = game.player(state)
        board, move = np.nonzero(game.action_mask(state))  # [M], the boards rising
        following = game.play(state[board], move)
        over, same = game.over(following), game.player(following) == player[board]
        looks = self.look(following, player[board], over, same, depth)
        first = np.flatnonzero(np.diff(board, prepend=-1))  # [N]
        if depth == 1 and shuffle is None:
            best = np.maximum.reduceat(looks, first)
            chance = np.flatnonzero(looks == best[board])
            return best, move[chance[np.searchsorted(board[chance], np.arange(len(state)))]]
        noise = (shuffle.random(len(board)),) if shuffle is not None else ()
        order = np.lexsort((*noise, -looks, board))  # [M], the moves of each board, best first
        number = np.diff(first, append=len(board))  # [N] of moves
        best, action = np.full(len(state), -np.inf, np.float32), move[order[first]]
        beta = np.minimum(beta, np.float32(depth))  # nothing is better than to win at once
        for turn in range(int(number.max())):
            matters = np.flatnonzero((turn < number) & (best < beta))
            if not len(matters):
                break
            child = order[first[matters] + turn]
            value = looks[child]
            if depth > 1 and len(deeper := np.flatnonzero(~over[child])):
                low, high = np.maximum(alpha, best)[matters[deeper]], beta[matters[deeper]]
                child, kept = child[deeper], same[child[deeper]]
                window = np.where(kept, low, -high), np.where(kept, high, -low)
                found, _ = self.search(following[child], depth - 1, *window)
                value[deeper] = np.where(kept, found, -found)
            better = matters[value > best[matters]]
            action[better] = move[order[first[better] + turn]]
            best[matters] = np.maximum(best[matters], value)
        return best, action

    def look(self, state: Array, player: Array, over: Array, same: Array, depth: int) -> Array:
        """Return what boards [M], reached with `depth` plies left, look worth to the players [M]
        who moved there; `same` of them move again."""
        looks = depth * self.game.score(state)[np.arange(len(state)), player]
        if self.heuristic is not None:
            seen = self.heuristic(state)
            looks = np.where(over, looks, np.where(same, seen, -seen))
        return looks.astype(np.float32)

    def state_dict(self) -> State:
        return {"agent": {"generator": self.generator.bit_generator.state}}

    def load_state_dict(self, state: State) -> None:
        self.generator.bit_generator.state = state["agent"]["generator"]
