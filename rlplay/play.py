"""The one loop: an agent and an env take turns, and everything else listens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from rlplay.core import Agent, Array, Decision, Env, Step, Trajectory


class Moment(NamedTuple):
    """One turn of the loop: what was seen, what was decided, and what came of it."""

    step: Step
    decision: Decision
    following: Step


def play(env: Env, agent: Agent, step: Step, explore: bool = True) -> Iterator[Moment]:
    """Play on from `step` for ever, one moment at a time."""
    while True:
        decision = agent.act(step, explore)
        following = env.step(decision.action)
        yield Moment(step, decision, following)
        step = following


def collect(moments: Iterable[Moment], horizon: int) -> Trajectory:
    """Take the next `horizon` moments of a stream and stack them into one trajectory."""
    taken = list(islice(moments, horizon))
    steps = [moment.step for moment in taken] + [taken[-1].following]
    return Trajectory(
        Step(*(stack(column) for column in zip(*steps, strict=True))),
        Decision(
            stack([m.decision.action for m in taken]),
            {name: stack([m.decision.notes[name] for m in taken]) for name in taken[0].decision.notes},
        ),
    )


def stack(column: Iterable[Array | None]) -> Array | None:
    column = list(column)
    return None if column[0] is None else np.stack(column)
