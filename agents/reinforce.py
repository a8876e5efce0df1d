"""REINFORCE (Williams 1992): what was done becomes likelier by what the episode earned after it,
with or without a learned baseline, the value, to compare that with.

It learns from whole episodes. With several envs side by side, one that spans an update began under
the policy before it. As everywhere, later decisions of an episode count as much as the first ones,
though their rewards are discounted. Without a baseline an episode that is cut short counts as over;
with one, the value of its last moment is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from rlplay import policy_gradient
from rlplay.core import Agent, Array, Decision, Mistake, Range, Spec, State, Step, Trajectory
from rlplay.policy_gradient import PolicyGradient
from rlplay.rollout import mean, normalized
from rlplay.targets import lambda_return


@dataclass(frozen=True)
class Config(policy_gradient.Config):
    name: Literal["reinforce"] = "reinforce"
    horizon: Annotated[int, Range(1)] = 16
    """Agent steps of each env between two looks at how many episodes are over."""
    learning_rate: Annotated[float, Range(0, 1)] = 1e-3
    """Step size of Adam at first."""
    entropy_weight: Annotated[float, Range(0)] = 0.0
    """Weight of the policy's entropy, that keeps it trying, beside its gain, at first."""
    entropy_weight_end: Annotated[float, Range(0)] = 0.0
    """The same after `schedule_steps`."""
    num_episodes: Annotated[int, Range(1)] = 8
    """Episodes in one update, at least."""
    longest_episode: Annotated[int, Range(1)] = 30_000
    """Agent steps after which an episode that goes on is a mistake: it could not be learned from
    before its end, and would fill the memory."""
    baseline: bool = True
    """Learn the value of what is seen, and compare returns with it."""
    value_weight: Annotated[float, Range(0)] = 0.5
    """Weight of the baseline's squared error beside the policy's gain."""
    normalize_returns: bool = False
    """Bring what actions are weighed by to mean 0 and deviation 1 in each update."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> Reinforce:
        """Build the agent. Raises Mistake where it cannot play in this world."""
        return Reinforce(self, spec, seed)


class Reinforce(PolicyGradient):
    def __init__(self, config: Config, spec: Spec, seed: int) -> None:
        super().__init__(config, spec, seed, valued=config.baseline)
        self.config = config
        self.forget()

    def improve(self, trajectory: Trajectory) -> dict[str, float]:
        """Remember a trajectory [T, N] and make an update where enough episodes are over."""
        self.waiting.append(after(trajectory, 0))
        ended = chained([part.step.done for part in self.waiting])[1:]  # [T, N]
        self.check_ends(ended)
        new = np.arange(len(ended))[:, None] >= self.learned  # [T, N] not yet learned from
        if (ended & new).sum() < self.config.num_episodes:
            return {}
        trajectory = joined(self.waiting)
        whole = np.maximum.accumulate(ended[::-1])[::-1]  # [T, N] of episodes that are over
        metrics = self.update(trajectory, whole & new)
        begins = whole.sum(0)  # [N] the first moment of the episode that goes on
        first = begins.min()
        self.learned = begins - first
        self.waiting = [after(trajectory, first)] if first < len(ended) else []
        return metrics

    def check_ends(self, ended: Array) -> None:
        """Raise Mistake where an episode goes on for too long, of moments [T, N] bool that ended
        one."""
        longest, last = self.config.longest_episode, ended[::-1].argmax(0)
        if np.where(ended.any(0), last, len(ended)).max() > longest:
            raise Mistake(
                f"the reinforce agent learns from whole episodes, and one has not ended after"
                f" {longest:,} agent steps: set env.max_steps, a larger agent.longest_episode, or"
                " agent.name=a2c"
            )

    def update(self, trajectory: Trajectory, whole: Array) -> dict[str, float]:
        """Make one step of gradient descent on the decisions in `whole` episodes, [T, N] bool."""
        config, rollout = self.config, self.rollout(trajectory)
        returns = lambda_return(*rollout.earnings(), trace=1)
        rows = self.tensor(whole) & rollout.live
        batch = rollout._replace(live=rows).flat(returns=returns)
        if not self.recurs:  # which needs all that came before
            batch = {name: column[rows.flatten()] for name, column in batch.items()}
        policy, value = self.judge(batch)
        returns, weight = batch["returns"], batch["weight"]
        error = returns - value
        gain = error.detach()
        if config.normalize_returns:
            gain = normalized(gain, weight)
        gain = mean(policy.log_prob(batch["sample"]) * gain, weight)
        value_loss = mean(error.square(), weight)
        entropy = mean(policy.entropy(), weight)
        loss = config.value_weight * value_loss - gain
        loss = loss - self.entropy_weight(self.num_seen) * entropy
        self.descent.step(loss, policy_gradient_loss=-gain, value_loss=value_loss, entropy=entropy)
        return self.descent.metrics(batch)

    def actor(self) -> Agent:
        raise Mistake(
            "the reinforce agent learns only from what its present policy did: set"
            " collect_ahead=false"
        )

    def cut(self) -> None:
        super().cut()
        self.forget()

    def forget(self) -> None:
        """Drop the episodes that go on."""
        self.waiting: list[Trajectory] = []  # what belongs to episodes that go on
        self.learned = np.zeros(self.spec.num_envs, np.int64)  # [N] moments of it learned from

    def state_dict(self) -> State:
        state = dict(super().state_dict())
        if self.waiting:
            step, decision = joined(self.waiting)
            leaves = step._asdict() | {"action": decision.action}
            leaves |= {f"note_{name}": note for name, note in decision.notes.items()}
            leaves["learned"] = self.learned
            state["replay"] = {name: leaf for name, leaf in leaves.items() if leaf is not None}
        return state

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.forget()
        saved = state.get("replay", {}).items()
        leaves: dict[str, Any] = {name: np.array(leaf) for name, leaf in saved}
        if len(leaves.get("learned", ())) != self.spec.num_envs:
            return
        self.learned = leaves.pop("learned")
        notes = {n[5:]: leaves.pop(n) for n in list(leaves) if n.startswith("note_")}
        decision = Decision(leaves.pop("action"), notes)
        self.waiting = [Trajectory(Step(**leaves), decision)]


def joined(parts: list[Trajectory]) -> Trajectory:
    """Return trajectories as one: the last moment of each is the first of the next."""
    if len(parts) == 1:
        return parts[0]
    columns = zip(*(part.step for part in parts), strict=True)
    steps = [None if column[0] is None else chained(column) for column in columns]
    decisions = [part.decision for part in parts]
    notes = {
        name: np.concatenate([decision.notes[name] for decision in decisions])
        for name in decisions[0].notes
    }
    action = np.concatenate([decision.action for decision in decisions])
    return Trajectory(Step._make(steps), Decision(action, notes))


def chained(moments: Sequence[Array]) -> Array:
    """Return arrays of moments [T + 1, ...] as one, in which each but the first begins with the
    moment that the one before ends with."""
    return np.concatenate([*(part[:-1] for part in moments[:-1]), moments[-1]])


def after(trajectory: Trajectory, first: int) -> Trajectory:
    """Return the moments from `first` on, in memory of their own, but for what only agents that
    plan look at."""
    step, decision = trajectory
    leaves: list[Any] = [*step._replace(state=None, measures=None)]
    return Trajectory(
        Step._make(None if leaf is None else leaf[first:].copy() for leaf in leaves),
        Decision(
            decision.action[first:].copy(),
            {name: note[first:].copy() for name, note in decision.notes.items()},
        ),
    )
