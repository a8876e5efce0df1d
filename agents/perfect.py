"""The player who makes no mistake, in games that tell the exact value of every move.

It asks the game's `solve(state)`: [N, A], what each move is worth to the player who moves, more is
better, below 0 is lost, nan is illegal. Where sooner wins are worth more, it wins as soon as it can
and loses as late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rlplay.chance import Chance
from rlplay.core import Agent, Decision, Mistake, Spec, State, Step


@dataclass(frozen=True)
class Config:
    name: Literal["perfect"] = "perfect"
    ties: Literal["random", "first"] = "random"
    """Which of equally good moves is played: any, or the first."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> Perfect:
        """Build the agent. Raises Mistake where the world is no game that can be solved."""
        if not hasattr(spec.model, "solve"):
            raise Mistake(
                "perfect plays games that can be solved, tictactoe, connect_four and othello with"
                " env.size=4, and this is none"
            )
        return Perfect(self, spec.model, seed)


class Perfect(Agent):
    """Notes "q_values" [N, A], what the game says of each move, and -max_moves if it is illegal;
    and "value" [N], 1 for a board that is won, -1 if it is lost, 0 if it is a draw."""

    def __init__(self, config: Config, game: Any, seed: int) -> None:
        self.config, self.game = config, game
        self.generator, self.chance = np.random.default_rng([*b"perfect", seed]), Chance()

    def act(self, step: Step, explore: bool = True) -> Decision:
        q_values = np.nan_to_num(self.game.solve(step.state), nan=-self.game.max_moves)
        best = q_values.max(1)
        equal = q_values == best[:, None]
        if self.config.ties == "random":
            equal = equal * self.chance.of(self.generator, explore).random(equal.shape)
        action = equal.argmax(1).astype(np.int64)
        return Decision(action, {"q_values": q_values, "value": np.sign(best)})

    def state_dict(self) -> State:
        return {"agent": {"generator": self.generator.bit_generator.state}}

    def load_state_dict(self, state: State) -> None:
        self.generator.bit_generator.state = state["agent"]["generator"]
