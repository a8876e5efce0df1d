"""The one loop: an agent and an env take turns, and everything else listens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from rlplay.core import Agent, Decision, Env, Step, Trajectory


class Moment(NamedTuple):
    """One turn of the loop: what was seen, what was decided, and what came of it."""

    step: Step
    decision: Decision
    following: Step


def play(env: Env, agent: Agent, step: Step, explore: bool = True) -> Iterator[Moment]:
    """Play on from `step` for ever, one moment at a time."""
    if not explore:
        agent.begin()
    while True:
        decision = agent.act(step, explore)
        following = env.step(decision.action)
        yield Moment(step, decision, following)
        step = following


def collect(moments: Iterable[Moment], horizon: int) -> Trajectory:
    """Take the next `horizon` moments of a stream and stack them into one trajectory."""
    taken = list(islice(moments, horizon))
    steps = [moment.step for moment in taken] + [taken[-1].following]
    steps = [step._replace(measures=None) for step in steps]  # they are not for agents
    decisions = [moment.decision for moment in taken]
    return Trajectory(
        Step(*(stack(column) for column in zip(*steps, strict=True))),
        Decision(
            stack([decision.action for decision in decisions]),
            {name: stack([d.notes[name] for d in decisions]) for name in decisions[0].notes},
        ),
    )


def stack(column: Sequence[Any]) -> Any:
    """Stack one field of T steps, a lone one uncopied; a field that is not used stays None."""
    if column[0] is None:
        return None
    return column[0][None] if len(column) == 1 else np.array(column)
