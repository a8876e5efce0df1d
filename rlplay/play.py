"""The one loop: an agent and an env take turns, and everything else listens."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, pairwise
from typing import Any, NamedTuple

import numpy as np

from rlplay.core import Agent, Decision, Env, State, Step, Trajectory


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


class Ahead:
    """The same stream, played by a thread one horizon ahead of whoever takes it: while the agent
    learns from one horizon, the next one is played.

    Which weights act does not depend on who is faster. Horizon k + 1 is played by `Agent.actor` as
    it is when horizon k is taken, which is the agent after learning from horizon k - 1; so the data
    is that of the same schedule without a thread. Nothing that was played ahead is lost:
    `collected` waits for it, so that a checkpoint can hold it, and a stream that begins with it
    (`first`) goes on as if nothing had been. An error of the world comes out where the horizon in
    which it happened would be taken."""

    def __init__(
        self, env: Env, agent: Agent, step: Step, horizon: int, first: Sequence[Moment] = ()
    ) -> None:
        """Begin with the moments `first`, after which the world stands at `step`. Raises Mistake
        for an agent that cannot act while it learns."""
        self.agent, self.horizon = agent, horizon
        self.moments = play(env, agent.actor(), step)
        self.thread = ThreadPoolExecutor(1)
        self.taken: deque[Moment] = deque()
        self.coming: Future[list[Moment]] | None = None
        if first:
            self.coming = Future()
            self.coming.set_result(list(first))

    def __iter__(self) -> Iterator[Moment]:
        return self

    def __next__(self) -> Moment:
        if not self.taken:
            coming = self.coming or self.begin()
            self.taken.extend(coming.result())
            self.begin()
        return self.taken.popleft()

    def begin(self) -> Future[list[Moment]]:
        """Let the thread play the next horizon, by the agent as it is now."""
        self.agent.actor()
        self.coming = self.thread.submit(lambda: list(islice(self.moments, self.horizon)))
        return self.coming

    def collected(self) -> list[Moment]:
        """Wait until nothing moves; return what was played and not yet taken, but for a horizon
        that an error has broken off."""
        if self.coming is None or self.coming.exception():
            return [*self.taken]
        return [*self.taken, *self.coming.result()]

    def close(self) -> None:
        """Wait for the thread, and let it go."""
        self.thread.shutdown()


def collect(moments: Iterable[Moment], horizon: int) -> Trajectory:
    """Take the next `horizon` moments of a stream and stack them into one trajectory."""
    return stacked(list(islice(moments, horizon)))


def stacked(moments: Sequence[Moment]) -> Trajectory:
    """Stack moments in a row into one trajectory, without measures, which are not for agents."""
    steps = [moment.step for moment in moments] + [moments[-1].following]
    steps = [step._replace(measures=None) for step in steps]
    decisions = [moment.decision for moment in moments]
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


def packed(moments: Sequence[Moment]) -> State:
    """Return moments in a row as what can be saved; empty where there are none."""
    if not moments:
        return {}
    step, decision = stacked(moments)
    measures = [moment.following.measures or {} for moment in moments]
    return {
        "step": step._asdict(),
        "measures": {name: stack([known[name] for known in measures]) for name in measures[0]},
        "action": decision.action,
        "notes": decision.notes,
    }


def unpacked(state: State) -> list[Moment]:
    """Return the moments that were packed."""
    if not state:
        return []
    leaves: list[Any] = [*Step(**state["step"])]
    measures, notes = state["measures"], state["notes"]
    count = len(state["action"])
    steps = [
        Step._make(None if leaf is None else leaf[t] for leaf in leaves) for t in range(count + 1)
    ]
    for t in range(count if measures else 0):
        known = {name: values[t] for name, values in measures.items()}
        steps[t + 1] = steps[t + 1]._replace(measures=known)
    decisions = [
        Decision(state["action"][t], {name: note[t] for name, note in notes.items()})
        for t in range(count)
    ]
    return [
        Moment(before, decision, after)
        for (before, after), decision in zip(pairwise(steps), decisions, strict=True)
    ]
