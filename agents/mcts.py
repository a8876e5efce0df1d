"""Monte Carlo tree search with random play (Kocsis and Szepesvari 2006; Coulom 2006): the opponent
that needs neither network nor training. It knows the rules and learns nothing.

UCT chooses in the tree: moves never tried first, then the highest Q + c sqrt(ln N / n). Each board
that is added to the tree is worth what random games from there score; the most visited move is
played.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from rlplay import search
from rlplay.chance import Chance
from rlplay.core import Agent, Decision, Mistake, Range, Spec, State, Step


@dataclass(frozen=True)
class Config:
    name: Literal["mcts"] = "mcts"
    num_simulations: Annotated[int, Range(1)] = 1000
    """Boards looked at for each move."""
    num_rollouts: Annotated[int, Range(1)] = 1
    """Random games from each board."""
    exploration: Annotated[float, Range(0)] = 1.4
    """The constant c of UCT, for scores in -1..1."""
    temperature: Annotated[float, Range(0)] = 0.0
    """To explore, moves are drawn in proportion to visits^(1 / temperature); 0 for the most visited
    move, as is always played for evaluation."""
    reuse: bool = False
    """Go on with the part of the last tree below the board that was reached."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> MCTS:
        """Build the agent. Raises Mistake where the world is no game for two."""
        return MCTS(self, spec, seed)


class MCTS(Agent):
    def __init__(self, config: Config, spec: Spec, seed: int) -> None:
        game = spec.model
        if spec.num_players != 2 or not hasattr(game, "rollout"):
            raise Mistake(
                "mcts searches the rules of a game for two, and this world has none; choose an"
                " agent that learns from play, such as dqn"
            )
        # Named, so that it never repeats the random numbers of an env with the same seed.
        generator = np.random.default_rng([*config.name.encode(), seed])
        self.config, self.game = config, game
        self.chance = Chance()
        self.search = self.shown = self.searching(generator)

    def searching(self, generator: np.random.Generator) -> search.Search:
        """Return a search that draws from `generator`."""
        config, game = self.config, self.game
        settings = search.Config(
            kind="uct",
            num_simulations=config.num_simulations,
            c_puct=config.exploration,
            temperature=config.temperature,
            temperature_moves=game.max_moves,
            reuse=config.reuse,
        )
        evaluator = search.rollouts(game, generator, config.num_rollouts)
        return search.Search(game, evaluator, settings, generator)

    def act(self, step: Step, explore: bool = True) -> Decision:
        generator = self.chance.of(self.search.generator, explore)
        if not explore and self.shown.generator is not generator:
            self.shown = self.searching(generator)
        used = self.search if explore else self.shown
        found = used.run(step.state)
        notes = {
            "policy": found.policy,
            "value": found.value,
            "visits": found.visits,
            "q_values": found.q_values,
        }
        return Decision(used.choose(found, 0, explore), notes)

    def cut(self) -> None:
        self.search.forget()
        self.shown.forget()

    def state_dict(self) -> State:
        return {"agent": dict(self.search.state_dict())}

    def load_state_dict(self, state: State) -> None:
        self.search.load_state_dict(state["agent"])
