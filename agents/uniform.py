"""The random player: every legal action is equally likely. The floor that others must clear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from gymnasium.spaces import Box

from rlplay.chance import Chance
from rlplay.core import Agent, Decision, Mistake, Spec, State, Step
from rlplay.evaluate import random_legal


@dataclass(frozen=True)
class Config:
    """The random player. It has nothing to set."""

    name: Literal["uniform"] = "uniform"

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> Uniform:
        """Build the agent. Raises Mistake where there is no uniform choice of action."""
        space = spec.action_space
        if isinstance(space, Box):
            if not space.is_bounded():
                raise Mistake(f"uniform cannot draw from the unbounded actions {space}")
        elif spec.num_actions == 0:
            raise Mistake(f"uniform plays Discrete and Box actions, and this world has {space}")
        return Uniform(spec, seed)


class Uniform(Agent):
    """Chooses among the legal actions, or between the bounds of continuous ones."""

    def __init__(self, spec: Spec, seed: int) -> None:
        self.space = spec.action_space
        # Named, so that it never repeats the random numbers of an env with the same seed.
        self.generator = np.random.default_rng([*b"uniform", seed])
        self.chance = Chance()

    def act(self, step: Step, explore: bool = True) -> Decision:
        generator = self.chance.of(self.generator, explore)
        if isinstance(self.space, Box):
            shape = (len(step.action_mask), *self.space.shape)
            action = generator.uniform(self.space.low, self.space.high, shape)
            return Decision(action.astype(np.float32), {})
        return Decision(random_legal(step.action_mask, generator), {})

    def state_dict(self) -> State:
        return {"agent": {"generator": self.generator.bit_generator.state}}

    def load_state_dict(self, state: State) -> None:
        self.generator.bit_generator.state = state["agent"]["generator"]
