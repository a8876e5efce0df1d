"""What agents share that learn what each action is worth by a network (agents/dqn.py, pqn.py):
where they can play, and how they act."""

from __future__ import annotations

import numpy as np

from rlplay.core import Array, Mistake, Spec


def check(name: str, spec: Spec) -> None:
    """Raise Mistake for continuous actions, and for several players."""
    if not spec.num_actions:
        raise Mistake(
            f"the {name} agent needs discrete actions, and this env has {spec.action_space}: choose"
            " another agent with agent.name"
        )
    if spec.num_players != 1:
        raise Mistake(f"the {name} agent plays alone, but this env has several players")


def greedy(q_values: Array, action_mask: Array) -> Array:
    """Return the best of the legal actions, [N] int64, by their values [N, A]."""
    return np.where(action_mask, q_values, -np.inf).argmax(1)


def epsilon_greedy(
    q_values: Array, action_mask: Array, epsilon: float, random: np.random.Generator
) -> Array:
    """Return the best of the legal actions or, with probability `epsilon`, any of them, [N]."""
    lots = random.random(action_mask.shape) * action_mask
    explores = random.random(len(action_mask)) < epsilon
    return np.where(explores, lots.argmax(1), greedy(q_values, action_mask))
