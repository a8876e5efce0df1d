"""What all planning agents share: with every step of play they sweep through the world's model.

An agent of agents/ says which solver of planning.py it sweeps with.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from rlplay.core import Agent, Array, Decision, Mistake, Range, Spec, State, Step, Trajectory
from rlplay.model import Model
from rlplay.planning import Solver
from rlplay.sweeps import Representation, Tables


@dataclass(frozen=True)
class Planning:
    """Settings of the agents that plan from a model."""

    discount: Annotated[float, Range(0, 1)] = 1.0
    """What a reward one step later is worth."""
    representation: Representation = "auto"
    """Whether probabilities are kept as a list of what can happen (sparse) or as a full matrix
    (dense); auto takes the matrix where it is small and well filled."""
    sweeps_per_step: Annotated[int, Range(1)] = 1
    """Sweeps for each moment of play, however many envs play side by side."""


class Planner(Agent):
    """Plans a little with every step, whatever happens in the world, and plays what is best by the
    plan so far. All envs play by the one plan."""

    def __init__(self, config: Any, spec: Spec) -> None:
        """Raises Mistake where the world has no model."""
        if not isinstance(spec.model, Model):
            raise Mistake(
                f"{config.name} plans from a model, and this world has none; choose an agent that"
                " learns from play, such as q_learning"
            )
        self.config, self.model = config, spec.model
        self.tables = Tables.of(self.model, config.representation)
        self.solver = self.start(spec)
        self.look()

    @abstractmethod
    def start(self, spec: Spec) -> Solver:
        """Return the solver that this agent sweeps with."""

    def look(self) -> None:
        """Work out what acting needs: finite action values [S, A] and actions [S] int64."""
        self.q_values, self.policy = self.finite_values(), self.solver.policy()

    def finite_values(self) -> Array:
        """Return what each action is worth by the plan so far, [S, A] float64: where it is illegal,
        as much as the worst legal one, and 0 in terminal states."""
        q_values = self.tables.action_values(self.solver.values, self.config.discount)
        least = np.where(self.tables.legal, q_values, np.inf).min(1, keepdims=True)
        least[self.tables.terminal] = 0
        return np.where(self.tables.legal, q_values, least)

    def notes(self, step: Step) -> dict[str, Array]:
        """Return what the plan says of the states of a step."""
        state = step.observation
        return {"q_values": self.q_values[state], "value": self.solver.values[state]}

    def act(self, step: Step, explore: bool = True) -> Decision:
        state, mask = step.observation, step.action_mask
        action = self.policy[state]
        illegal = ~mask[np.arange(len(state)), action]  # where an episode has just ended
        action[illegal] = mask[illegal].argmax(1)
        return Decision(action, self.notes(step))

    def learn(self, trajectory: Trajectory) -> dict[str, float]:
        for _ in range(self.config.sweeps_per_step):
            self.solver.sweep()
        self.look()
        metrics = {
            "train/residual": float(self.solver.residual),
            "train/value": float(self.model.start @ self.solver.values),
            "train/sweeps": self.solver.sweeps,
        }
        if math.isfinite(self.solver.error_bound):
            metrics["train/error_bound"] = float(self.solver.error_bound)
        return metrics

    def state_dict(self) -> State:
        return self.solver.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.solver.load_state_dict(state)
        self.look()
